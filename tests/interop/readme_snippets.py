#!/usr/bin/env python3
"""Runs the programs that stand in README.md and docs/ with stock SDKs, as they are written:

    readme_snippets.py BINARY [--only PLACE]     each against a gateway on config.json
    readme_snippets.py --list                    names them, and looks at the syntax of those in Python

A program is a fenced block of python, js or ts. It succeeds if it ends with 0 and prints what the demo server says."""

import argparse
import pathlib
import re
import sys
import tempfile

from servers import CACHE, HERE, MODULES, NODE, NotReady, PYTHON, Server, free_port, get_status, run

ROOT = HERE.parent.parent
LANGUAGES = {"python": ".py", "js": ".mjs", "ts": ".mts"}
# The address that the documents name.
ADDRESSES = ("localhost:4000", "127.0.0.1:4000")
# Programs that import this run in another environment of setup.sh than the SDK's.
ENVIRONMENTS = {"langchain_mcp_adapters": "venv-langchain"}
# What is in a program's output, by what is in the program: it is not enough that nothing fails.
PRINTS = {"hello": "hello", "get_tools": "echo", "listTools": "echo", "list_tools": "echo"}
SECONDS = 60


def snippets() -> list[tuple[str, str, str]]:
    """Place, language and text of each."""
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        block: tuple[str, str, int, list[str]] | None = None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if block and line.strip() == "```":
                place, language, _, lines = block
                if language in LANGUAGES:
                    found.append((place, language, "\n".join(lines) + "\n"))
                block = None
            elif block:
                block[3].append(line[block[2] :])
            elif m := re.match(r"( *)```(.*)", line):
                block = (f"{path.relative_to(ROOT)}:{number}", m[2].strip(), len(m[1]), [])
    return found


def wrong_with(language: str, text: str, address: str, folder: pathlib.Path) -> str | None:
    """Runs one; what is wrong, or None."""
    for named in ADDRESSES:
        text = text.replace(named, address)
    if address not in text:
        return f"it names none of {ADDRESSES}"
    script = folder / f"program{LANGUAGES[language]}"
    script.write_text(text)
    program = NODE
    if language == "python":
        environments = [CACHE / e / "bin/python" for package, e in ENVIRONMENTS.items() if package in text]
        program = environments[0] if environments else PYTHON
    else:
        (folder / "node_modules").symlink_to(MODULES)
    output = folder / "output.txt"
    code = run([program, script], output, SECONDS)
    said = output.read_text(errors="replace")
    wanted = [prints for part, prints in PRINTS.items() if part in text]
    if code != 0:
        return f"it ended with {code}: {said[-2000:]}"
    if not wanted:
        return "nobody knows what it should print: add a row to PRINTS"
    missing = [it for it in wanted if it not in said]
    return f"it printed no {missing}: {said[-2000:]}" if missing else None


def check_all(binary: str, only: str | None) -> dict[str, str | None]:
    """What is wrong with each program, by place and language."""
    found: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        address = f"127.0.0.1:{free_port()}"
        serve = [binary, "serve", "--config", ROOT / "config.json", "--listen", address]
        with Server("gateway", serve, folder / "gateway.log") as gateway:
            gateway.wait_for("ready", lambda: get_status(f"http://{address}/readyz") == 200)
            for number, (place, language, text) in enumerate(snippets()):
                name = f"{place} {language}"
                if only is None or only in name:
                    own = folder / str(number)
                    own.mkdir()
                    found[name] = wrong_with(language, text, address, own)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only")
    arguments = parser.parse_args()
    if arguments.list:
        for place, language, text in snippets():
            if language == "python":
                compile(text, place, "exec")
            print(f"{place} {language}")
        return 0
    if not arguments.binary:
        parser.error("BINARY is missing")
    found = check_all(arguments.binary, arguments.only)
    for name, why in found.items():
        print(f"ok {name}" if why is None else f"FAIL {name} {why}")
    return 0 if found and not any(found.values()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotReady as e:
        sys.exit(str(e))
