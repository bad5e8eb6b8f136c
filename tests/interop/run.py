#!/usr/bin/env python3
"""The interoperability run: the official conformance suite and stock clients against the gateway.

    run.py GATEWAY_BINARY [--only TEXT] [--keep]
    run.py --direct [--only TEXT] [--keep]

    --direct     nothing in between: proves the fixture and the scripts, where nothing may fail
    --only TEXT  only the checks whose line contains TEXT, for instance 'two driver ts2-sse'
    --keep       keep the logs (they are kept anyway when something failed)

One line per check. A check that fails must be listed in expected_failures.txt, and one that is
listed must fail. The last line is 'N passed, N failed'; what failed as expected is neither.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatchcase

from servers import CACHE, HERE, LOOPBACK, MODULES, NODE, PYTHON, Direct, Gateway, NotReady, Server, free_port, list_tools, run

SUITE = MODULES / "@modelcontextprotocol/conformance/dist/index.js"

TOOLS = [
    "tools-list",
    "tools-call-simple-text",
    "tools-call-image",
    "tools-call-audio",
    "tools-call-embedded-resource",
    "tools-call-mixed-content",
    "tools-call-error",
    "tools-call-with-progress",
    "tools-call-with-logging",
    "tools-call-sampling",
]
BASIS = ["server-initialize", "server-session-lifecycle", "ping"]

# Which of the suite's server scenarios run at which revision. Elicitation is younger than
# 2025-03-26; the last two know only the newest of these revisions.
SERVER_SCENARIOS = {
    "2025-11-25": BASIS + TOOLS + ["tools-call-elicitation", "server-sse-multiple-streams", "dns-rebinding-protection"],
    "2025-06-18": BASIS + TOOLS + ["tools-call-elicitation"],
    "2025-03-26": BASIS + TOOLS,
}
# What the suite's client asks for when it is left alone.
SUITE_ASKS_FOR = "2025-11-25"

CLIENT_SCENARIOS = {"2025-11-25": ["initialize", "tools_call"]}

# The stock clients, and which of their checks run.
DRIVERS = {
    "py2-legacy": [PYTHON, HERE / "drivers/py/user_mcp2.py", "--era", "legacy"],
    "ts2-legacy": [NODE, "user_ts2.mjs", "--era", "legacy"],
    "py2-sse": [PYTHON, HERE / "drivers/py/user_mcp2.py", "--transport", "sse"],
    "ts2-sse": [NODE, "user_ts2.mjs", "--transport", "sse"],
}
DRIVER_CHECKS = [
    "connect",
    "list-tools",
    "call-echo",
    "call-structured",
    "call-content-kinds",
    "call-error",
    "call-unknown",
    "progress",
    "cancellation",
    "big-result",
    "parallel",
    "ping",
    "close",
]
ONLY_PYTHON = {"call-unknown"}

SUITE_TIMEOUT_MS = 10000


class Results:
    """What every check came to, beside what was expected of it."""

    def __init__(self, only: str, expected: list[tuple[str, str]]) -> None:
        self.only, self.expected = only, expected
        # Whether every check was come to, so that a line that met none is a wrong line.
        self.complete = not only
        self.met: set[str] = set()
        self.count: collections.Counter[str] = collections.Counter()
        self.surprises: list[str] = []

    def wants(self, name: str) -> bool:
        return self.only in name

    def add(self, name: str, why: str | None, seconds: float | None = None) -> None:
        """`why` it failed, or None."""
        matches = [(pattern, reason) for pattern, reason in self.expected if fnmatchcase(name, pattern)]
        self.met.update(pattern for pattern, _ in matches)
        took = f" {seconds:.1f}s" if seconds is not None else ""
        if why is None and not matches:
            self.count["passed"] += 1
            print(f"ok    {name}{took}", flush=True)
        elif why is None:
            self.fail(f"{name}: passes, but is listed in expected_failures.txt ({matches[0][1]})")
        elif matches:
            self.count["expected"] += 1
            print(f"xfail {name}{took} ({matches[0][1]})", flush=True)
        else:
            self.fail(f"{name}: {why[:1500]}")

    def fail(self, surprise: str) -> None:
        self.count["failed"] += 1
        self.surprises.append(surprise)
        print(f"FAIL  {surprise}", flush=True)

    def close(self) -> bool:
        if self.complete:
            for pattern, reason in self.expected:
                if pattern not in self.met:
                    self.fail(f"{pattern}: a line of expected_failures.txt that meets no check ({reason})")
        if self.surprises:
            print("not as expected:", *self.surprises, sep="\n  ")
        print(f"{self.count['expected']} failed as expected")
        print(f"{self.count['passed']} passed, {self.count['failed']} failed")
        return not self.surprises and self.count["passed"] > 0


def read_expected(file: pathlib.Path) -> list[tuple[str, str]]:
    """Lines 'SETUP KIND REVISION CHECK REASON' as a pattern for a check's name, and the reason."""
    entries = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            words = line.split(None, 4)
            if len(words) < 5:
                raise SystemExit(f"{file.name}:{number}: a reason is missing: {line}")
            entries.append((" ".join(words[:4]), words[4]))
    return entries


def server_scenarios(results: Results, setup: str, target: Gateway | Direct, folder: pathlib.Path) -> None:
    for revision, scenarios in SERVER_SCENARIOS.items():
        wanted = [s for s in scenarios if results.wants(f"{setup} server {revision} {s}")]
        if not wanted:
            continue
        port, relayed = free_port(), revision != SUITE_ASKS_FOR or target.prefix
        relay = [NODE, HERE / "relay.mjs", "--listen", port, "--target", target.url]
        relay += ["--log", folder / f"wire-{revision}.txt", "--prefix", target.prefix]
        relay += ["--revision", revision] if revision != SUITE_ASKS_FOR else []
        with Server("relay", relay, folder / f"relay-{revision}.log") as server:
            server.wait_port(port)
            url = f"http://127.0.0.1:{port}/mcp" if relayed else target.url
            for scenario in wanted:
                suite(results, f"{setup} server {revision} {scenario}", ["server", "--url", url], folder)


def client_scenarios(results: Results, setup: str, binary: str | None, folder: pathlib.Path) -> None:
    for revision, scenarios in CLIENT_SCENARIOS.items():
        for scenario in scenarios:
            own = folder / f"client-{scenario}"
            script = HERE / "client" / ("through_gateway.py" if binary else "drive.py")
            env = LOOPBACK | {"RIG_GATEWAY": binary or "", "RIG_SETUP": setup, "RIG_FOLDER": str(own)}
            arguments = ["client", "--command", f"{PYTHON} {script}"]
            suite(results, f"{setup} client {revision} {scenario}", arguments, folder, env)


def suite(
    results: Results, name: str, arguments: list[str], folder: pathlib.Path, env: dict[str, str] | None = None
) -> None:
    """Runs one scenario, the check called `name`, and reads what the suite left behind."""
    if not results.wants(name):
        return
    _, kind, revision, scenario = name.split()
    out = folder / f"{kind}-{revision}-{scenario}"
    # The suite counts few scenarios as 2025-03-26's, hence --force; it keeps that revision's schema.
    command = [NODE, SUITE, *arguments, "--scenario", scenario, "--spec-version", revision, "--force", "-o", out]
    # A client scenario starts a gateway with its upstreams first.
    command += ["--timeout", SUITE_TIMEOUT_MS * (1 if kind == "server" else 4)]
    out.mkdir()
    began = time.monotonic()
    run(command, out / "output.txt", 90, env)
    took = time.monotonic() - began

    checks = [check for file in out.rglob("checks.json") for check in json.loads(file.read_text())]
    # A warning counts as a failure for the suite too.
    bad = [c for c in checks if c["status"] in ("FAILURE", "WARNING")]
    good = [c for c in checks if c["status"] == "SUCCESS"]
    if bad:
        why = "; ".join(f"{c['id']}: {c.get('errorMessage') or c.get('description') or ''}" for c in bad)
    else:
        why = None if good else f"left no check (timeout or crash), see {out}/output.txt"
    if why is None and kind == "client" and "Client exited with code" in (out / "output.txt").read_text():
        why = f"the client failed, see {out}/output.txt"
    results.add(name, why, took)


def drivers(results: Results, setup: str, target: Gateway | Direct, folder: pathlib.Path) -> None:
    # Node looks for packages beside the importing file, so the scripts are put beside a link to them.
    scripts = folder / "drivers"
    shutil.copytree(HERE / "drivers/node", scripts)
    (scripts / "node_modules").symlink_to(MODULES)
    for driver, command in DRIVERS.items():
        checks = [c for c in DRIVER_CHECKS if driver.startswith("py") or c not in ONLY_PYTHON]
        checks = [c for c in checks if results.wants(f"{setup} driver {driver} {c}")]
        if not checks:
            continue
        program, script, *more = command
        url = target.sse_url if driver.endswith("-sse") else target.url
        arguments = [program, scripts / script, url, *more, "--only", ",".join(checks)]
        arguments += ["--prefix", target.prefix] if target.prefix else []
        log = folder / f"driver-{driver}.txt"
        run(arguments, log, 150)
        said = {}
        for line in log.read_text(errors="replace").splitlines():
            if m := re.match(r"(ok|FAIL) (\S+) ?(.*)", line):
                said[m[2]] = None if m[1] == "ok" else m[3] or "failed"
        for check in checks:
            results.add(f"{setup} driver {driver} {check}", said.get(check, f"it did not come to this check, see {log}"))


def one_setup(results: Results, setup: str, binary: str | None, folder: pathlib.Path) -> None:
    folder.mkdir()
    port = free_port()
    upstream = f"http://127.0.0.1:{port}/mcp"
    fixture = Server("fixture", [PYTHON, HERE / "fixture/fixture_server.py", "http", "--port", port], folder / "fixture.log")
    with fixture:
        fixture.wait_port(port)
        names = list_tools(upstream)
        target = Gateway(binary, setup, upstream, folder / "gateway") if binary else Direct(upstream, folder / "direct")
        with target:
            try:
                target.wait_ready()
                target.wait_tools(names)
            except NotReady as e:
                results.complete = False
                return results.add(f"{setup} gateway - start", str(e))
            server_scenarios(results, setup, target, folder)
            drivers(results, setup, target, folder)
            stopped = target.stop()
        if binary and results.wants(f"{setup} gateway - stop"):
            results.add(f"{setup} gateway - stop", None if stopped == 0 else f"exit code after SIGTERM: {stopped}")
    client_scenarios(results, setup, binary, folder)


def main() -> int:
    about, _, usage = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(description=about, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("gateway", nargs="?", help="the gateway's binary")
    p.add_argument("--direct", action="store_true")
    p.add_argument("--only", default="", metavar="TEXT")
    p.add_argument("--keep", action="store_true")
    a = p.parse_args()
    if bool(a.gateway) == a.direct:
        p.error("give either the gateway's binary or --direct")
    binary = os.path.abspath(a.gateway) if a.gateway else None
    # Told to end, it stops its servers first, as with Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("told to end"))

    subprocess.run([HERE / "setup.sh", CACHE], check=True, stdin=subprocess.DEVNULL)
    began = time.monotonic()
    results = Results(a.only, [] if a.direct else read_expected(HERE / "expected_failures.txt"))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="trunkline-interop-"))
    try:
        for setup in ("one", "two") if binary else ("direct",):
            one_setup(results, setup, binary, folder / setup)
    except BaseException:
        a.keep = True
        raise
    finally:
        if a.keep or results.surprises:
            print(f"\nlogs: {folder}")
        else:
            shutil.rmtree(folder)
    print(f"\nin {time.monotonic() - began:.0f} s")
    return 0 if results.close() else 1


if __name__ == "__main__":
    sys.exit(main())
