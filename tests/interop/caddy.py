#!/usr/bin/env python3
"""The gateway behind Caddy over TLS and under a path, with contrib/caddy/Caddyfile as it is but for names and
ports: caddy.py GATEWAY_BINARY [SECONDS]

The same clients as behind nginx (nginx.py), and the console. Needs caddy and openssl."""

import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from nginx import ROOT, check, did, gateway_behind, request


def configuration(work: Path, port: int, gateway: int) -> Path:
    text = (ROOT / "contrib/caddy/Caddyfile").read_text()
    secured = f"https://mcp.example.org:{port} {{\n\tbind 127.0.0.1\n\ttls {work}/cert.pem {work}/key.pem"
    for old, new in [
        ("mcp.example.org {", secured),
        ("reverse_proxy 127.0.0.1:4000 {", f"reverse_proxy 127.0.0.1:{gateway} {{"),
    ]:
        assert old in text, old
        text = text.replace(old, new)
    path = work / "Caddyfile"
    path.write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + text)
    return path


def caddy(work: Path, port: int, gateway: int) -> list[Any]:
    return ["caddy", "run", "--adapter", "caddyfile", "--config", configuration(work, port, gateway)]


def main(binary: str, seconds: float) -> None:
    with gateway_behind(binary, caddy) as (port, work):
        check(port, work, seconds)
        assert request(port, work, "GET", "/trunk").getheader("Location") == "/trunk/"
        page = request(port, work, "GET", "/trunk/").read().decode()
        parts = re.findall(r'(?:src|href)="([^"#:]+)"', page)
        assert parts, page
        for part in parts:
            path = urljoin("/trunk/", part)
            assert path.startswith("/trunk/"), f"{part} is not below the page"
            assert request(port, work, "GET", path).status == 200, part
        did("console")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 5)
