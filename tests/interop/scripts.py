"""Programs that check one thing against one program that others wrote, and say `ok CHECK` for each check."""

import os
import pathlib
import re
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable

from readme_snippets import check_all, snippets
from results import Results
from servers import CACHE, HERE, NODE, NotReady, run

# What `setup.sh` has unpacked comes before what the machine has.
ENV = {"PATH": f"{CACHE / 'bin'}:{os.environ.get('PATH', os.defpath)}:/usr/sbin"}


@dataclass(frozen=True)
class Script:
    # BINARY and FOLDER stand for the gateway's, and for one that it may fill.
    command: list[Any]
    # What it says `ok` of; of one that says nothing of the kind, whether it ends with 0.
    checks: tuple[str, ...] = ()
    # It is ended after that.
    seconds: float = 120


PROXY = ("under-the-path", "events-at-once", "stream-kept", "rest")
SCRIPTS = {
    "observability": Script(
        [CACHE / "venv-otlp/bin/python", HERE / "observability.py", "BINARY"],
        ("rules-file", "config-file", "metrics", "spans", "scraped", "rules-loaded", "dashboard"),
    ),
    # A silent stream is kept for longer than nginx waits by default, a minute.
    "nginx": Script([sys.executable, HERE / "nginx.py", "BINARY"], PROXY, 240),
    "caddy": Script([sys.executable, HERE / "caddy.py", "BINARY"], (*PROXY, "console")),
    "packages": Script(["bash", HERE / "packages.sh", "FOLDER", "BINARY"], ("npm", "pypi", "deb"), 240),
    "openapi": Script([CACHE / "venv-schemathesis/bin/python", HERE / "openapi.py", "BINARY"]),
    "console": Script([NODE, HERE / "console.mjs", "BINARY", CACHE / "browser"], seconds=300),
    "upgrade": Script([sys.executable, HERE / "upgrade.py", "BINARY"], seconds=300),
}


def all_scripts(results: Results, binary: str, folder: pathlib.Path) -> dict[str, Callable[[], None]]:
    """The parts of the run that are a script each, by name."""
    return {name: partial(one_script, results, name, binary, folder / name) for name in SCRIPTS}


def all_snippets(results: Results, binary: str) -> None:
    """The programs of the README and of `docs/`, a row each."""
    rows = {f"{place} {language}": f"snippets driver {language} {place}" for place, language, _ in snippets()}
    if not any(map(results.wants, rows.values())):
        return
    try:
        for program, why in check_all(binary, None).items():
            if results.wants(rows[program]):
                results.add(rows[program], why)
    except NotReady as e:
        results.complete = False
        results.add("snippets gateway - start", str(e))


def one_script(results: Results, name: str, binary: str, folder: pathlib.Path) -> None:
    script = SCRIPTS[name]
    checks = {check: f"{name} gateway - {check}" for check in script.checks or ("whole",)}
    if not any(map(results.wants, checks.values())):
        return
    folder.mkdir()
    log = folder / "output.txt"
    given = {"BINARY": binary, "FOLDER": folder}
    code = run([given.get(word, word) for word in script.command], log, script.seconds, ENV)
    text = log.read_text(errors="replace")
    said = set(re.findall(r"^ok (\S+)", text, re.M))
    if not script.checks and code == 0:
        said = set(checks)
    ended = f"it ended with {code}" if code is not None else f"not within {script.seconds} s"
    for check, name in checks.items():
        results.add(name, None if check in said else f"{ended}, see {log}\n{text[-1000:]}")
    if code != 0 and said.issuperset(checks):
        results.fail(f"{list(checks.values())[-1]}: and then {ended}, see {log}\n{text[-1000:]}")
