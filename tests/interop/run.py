#!/usr/bin/env python3
"""The interoperability run: the official conformance suite and stock clients against the gateway.

    run.py GATEWAY_BINARY [--only TEXT] [--keep]
    run.py --direct [--only TEXT] [--keep]

    --direct     nothing in between: proves the fixture and the scripts, where nothing may fail
    --only TEXT  only the checks whose line contains TEXT, for instance 'http-two driver ts2-sse'
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

from servers import CACHE, HERE, LOOPBACK, MODULES, NODE, PYTHON, Direct, Fixture, Gateway, NotReady, Server, free_port, run

SUITE = MODULES / "@modelcontextprotocol/conformance/dist/index.js"

# The suite's server scenarios by revision. The whole of a revision is one run of the suite, with
# these words; what it counts as the revision's is what stands here.
LIFECYCLE = ["server-initialize", "server-session-lifecycle", "ping"]
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
SINCE_2025_06_18 = [
    "logging-set-level",
    "completion-complete",
    "tools-call-elicitation",
    "resources-list",
    "resources-read-text",
    "resources-read-binary",
    "resources-templates-read",
    "resources-subscribe",
    "resources-unsubscribe",
    "prompts-list",
    "prompts-get-simple",
    "prompts-get-with-args",
    "prompts-get-embedded-resource",
    "prompts-get-with-image",
]
SINCE_2025_11_25 = [
    "elicitation-sep1034-defaults",
    "elicitation-sep1330-enums",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
    "json-schema-2020-12",
    "server-sse-polling",
]
SERVER_SCENARIOS = {
    "2025-11-25": LIFECYCLE + TOOLS + SINCE_2025_06_18 + SINCE_2025_11_25,
    "2025-06-18": LIFECYCLE + TOOLS + SINCE_2025_06_18,
    # The suite counts only one of them as this revision's; the others are forced.
    "2025-03-26": LIFECYCLE + TOOLS,
}
WHOLE_REVISION = {
    "2025-11-25": ["--requirements", "2025-11-25"],
    "2025-06-18": ["--suite", "all", "--spec-version", "2025-06-18"],
}
# What the suite's client asks for when it is left alone.
SUITE_ASKS_FOR = "2025-11-25"

CLIENT_SCENARIOS = {
    "2025-11-25": [
        "initialize",
        "tools_call",
        "elicitation-sep1034-client-defaults",
        "sse-retry",
        "json-schema-2020-12-preservation",
    ]
}

# The set-ups: the transport to the fixture, alone or with server-everything beside it. The older
# revisions and the suite's own servers, which speak only Streamable HTTP, are for the first two.
SETUPS = ["http", "http-two", "sse", "sse-two", "stdio", "stdio-two"]
EVERY_REVISION = ("http", "http-two", "direct")

# The stock clients, each run whole.
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
    "logging",
    "resources",
    "resource-templates",
    "prompts",
    "completion",
    "sampling",
    "elicitation",
    "roots",
    "resource-updates",
    "list-changed",
    "cancellation",
    "resumption",
    "big-result",
    "parallel",
    "two-users",
    "ping",
    "close",
]


def checks_of(driver: str) -> list[str]:
    """What that driver checks: one check is Python's alone, one Streamable HTTP's."""
    left_out = {"call-unknown"} if driver.startswith("ts") else set()
    left_out |= {"resumption"} if driver.endswith("-sse") else set()
    return [check for check in DRIVER_CHECKS if check not in left_out]


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
        if not wanted or (revision != SUITE_ASKS_FOR and setup not in EVERY_REVISION):
            continue
        port, relayed = free_port(), revision != SUITE_ASKS_FOR or target.prefix
        relay = [NODE, HERE / "relay.mjs", "--listen", port, "--target", target.url]
        relay += ["--log", folder / f"wire-{revision}.txt", "--prefix", target.prefix]
        relay += ["--revision", revision] if revision != SUITE_ASKS_FOR else []
        with Server("relay", relay, folder / f"relay-{revision}.log") as server:
            server.wait_port(port)
            url = f"http://127.0.0.1:{port}/mcp" if relayed else target.url
            arguments = ["server", "--url", url]
            if wanted == scenarios and revision in WHOLE_REVISION:
                whole_revision(results, f"{setup} server {revision}", scenarios, arguments, folder)
                continue
            for scenario in wanted:
                suite(results, f"{setup} server {revision} {scenario}", arguments, folder)


def whole_revision(
    results: Results, name: str, scenarios: list[str], arguments: list[str], folder: pathlib.Path
) -> None:
    """All scenarios of a revision in one run of the suite, which is much faster than one by one."""
    revision = name.split()[-1]
    out = folder / f"server-{revision}"
    out.mkdir()
    command = [NODE, SUITE, *arguments, *WHOLE_REVISION[revision], "-o", out, "--timeout", SUITE_TIMEOUT_MS]
    seconds = len(scenarios) * SUITE_TIMEOUT_MS / 1000 + 30
    run(command, out / "output.txt", seconds)
    left: dict[str, list[pathlib.Path]] = {}
    for file in out.rglob("checks.json"):
        if m := re.match(r"server-(.+)-\d{4}-\d\d-\d\dT", file.parent.name):
            left.setdefault(m[1], []).append(file)
    for scenario in scenarios:
        results.add(f"{name} {scenario}", failure_in(left.pop(scenario, []), out))
    for scenario in left:
        results.fail(f"{name} {scenario}: the suite ran it, but run.py does not know it")


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

    why = failure_in(list(out.rglob("checks.json")), out)
    if why is None and kind == "client" and "Client exited with code" in (out / "output.txt").read_text():
        why = f"the client failed, see {out}/output.txt"
    results.add(name, why, took)


def failure_in(files: list[pathlib.Path], out: pathlib.Path) -> str | None:
    """What failed of the checks that the suite left in these files, or None."""
    checks = [check for file in files for check in json.loads(file.read_text())]
    # A warning counts as a failure for the suite too.
    bad = [c for c in checks if c["status"] in ("FAILURE", "WARNING")]
    if bad:
        return "; ".join(f"{c['id']}: {c.get('errorMessage') or c.get('description') or ''}" for c in bad)
    if any(c["status"] == "SUCCESS" for c in checks):
        return None
    return f"left no check (timeout or crash), see {out}/output.txt"


def drivers(results: Results, setup: str, target: Gateway | Direct, folder: pathlib.Path) -> None:
    # Node looks for packages beside the importing file, so the scripts are put beside a link to them.
    scripts = folder / "drivers"
    shutil.copytree(HERE / "drivers/node", scripts)
    (scripts / "node_modules").symlink_to(MODULES)
    for driver, command in DRIVERS.items():
        checks = [c for c in checks_of(driver) if results.wants(f"{setup} driver {driver} {c}")]
        if not checks:
            continue
        program, script, *more = command
        url = target.sse_url if driver.endswith("-sse") else target.url
        arguments = [program, scripts / script, url, *more]
        arguments += ["--only", ",".join(checks)] if results.only else []
        arguments += ["--prefix", target.prefix] if target.prefix else []
        log = folder / f"driver-{driver}.txt"
        # Twenty seconds a check at the most; a client that hangs is ended.
        run(arguments, log, 240)
        said = {}
        for line in log.read_text(errors="replace").splitlines():
            if m := re.match(r"(ok|FAIL) (\S+) ?(.*)", line):
                said[m[2]] = None if m[1] == "ok" else m[3] or "failed"
        for check in checks:
            results.add(f"{setup} driver {driver} {check}", said.get(check, f"it did not come to this check, see {log}"))


def one_setup(results: Results, setup: str, binary: str | None, folder: pathlib.Path) -> None:
    folder.mkdir()
    transport, _, beside = setup.partition("-")
    if any(results.wants(name) for name in all_names(setup) if " client " not in name):
        with Fixture("http" if setup == "direct" else transport, folder) as upstream:
            target = Gateway(binary, upstream.config, bool(beside), folder / "gateway") if binary else Direct(upstream, folder)
            through_target(results, setup, target, folder)
    if setup in EVERY_REVISION:
        client_scenarios(results, setup, binary, folder)


def all_names(setup: str) -> list[str]:
    """Every check of a set-up, so that one of which nothing is wanted is not started."""
    names = [f"{setup} gateway - {check}" for check in ("start", "stop")]
    names += [f"{setup} server {revision} {s}" for revision, list in SERVER_SCENARIOS.items() for s in list]
    names += [f"{setup} client {revision} {s}" for revision, list in CLIENT_SCENARIOS.items() for s in list]
    return names + [f"{setup} driver {driver} {check}" for driver in DRIVERS for check in checks_of(driver)]


def through_target(results: Results, setup: str, target: Gateway | Direct, folder: pathlib.Path) -> None:
    with target:
        try:
            target.wait_ready()
        except NotReady as e:
            results.complete = False
            return results.add(f"{setup} gateway - start", str(e))
        server_scenarios(results, setup, target, folder)
        drivers(results, setup, target, folder)
        stopped = target.stop()
    if isinstance(target, Gateway) and results.wants(f"{setup} gateway - stop"):
        results.add(f"{setup} gateway - stop", None if stopped == 0 else f"exit code after SIGTERM: {stopped}")


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
        for setup in SETUPS if binary else ["direct"]:
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
