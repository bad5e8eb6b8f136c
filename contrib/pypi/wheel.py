#!/usr/bin/env python3
"""A wheel that carries the static binary: wheel.py BINARY VERSION OUT_DIRECTORY

A wheel puts what is under NAME.data/scripts beside the interpreter, so that no Python is run."""

import base64
import hashlib
import stat
import sys
import zipfile
from pathlib import Path

# A static binary needs no C library, so that both kinds of Linux take it.
TAGS = ["py3-none-manylinux_2_17_x86_64", "py3-none-musllinux_1_1_x86_64"]
FILE_TAG = "py3-none-manylinux_2_17_x86_64.musllinux_1_1_x86_64"


def main(binary: Path, version: str, out: Path) -> None:
    info = f"trunkline-{version}.dist-info"
    metadata = (
        f"Metadata-Version: 2.1\nName: trunkline\nVersion: {version}\n"
        "Summary: MCP gateway: REST, SSE and Streamable HTTP in front of many MCP servers\n"
        "License: Apache-2.0\n"
    )
    tags = "".join(f"Tag: {tag}\n" for tag in TAGS)
    wheel = f"Wheel-Version: 1.0\nGenerator: trunkline\nRoot-Is-Purelib: false\n{tags}"
    files = {
        f"trunkline-{version}.data/scripts/trunkline": binary.read_bytes(),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": wheel.encode(),
    }
    record = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(content)}\n")
    record.append(f"{info}/RECORD,,\n")
    files[f"{info}/RECORD"] = "".join(record).encode()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"trunkline-{version}-{FILE_TAG}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # The same bytes for the same binary, whenever it is made.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            mode = 0o755 if "/scripts/" in name else 0o644
            entry.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(entry, content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"{path}  {path.stat().st_size} bytes  sha256 {digest}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
