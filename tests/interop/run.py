#!/usr/bin/env python3
"""The interoperability run: the official conformance suite and stock clients against the gateway.

    run.py GATEWAY_BINARY [--only TEXT] [--keep]
    run.py --direct [--only TEXT] [--keep]
    run.py --install

    --direct     nothing in between: proves the fixture and the scripts, where nothing may fail
    --install    no check: installs what the others need, which they do too
    --only TEXT  only the checks whose line contains TEXT, for instance 'http-two driver ts2-sse'
    --keep       keep the logs (they are kept anyway when something failed)

One line per check. A check that fails must be listed in expected_failures.txt, and one that is
listed must fail. The last line is 'N passed, N failed'; what failed as expected is neither.
"""

import argparse
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
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import partial
from typing import Callable

import everything
import identity_clients
import identity_own
import identity_sign_in
import inspector
import litellm_dialect
import matrix
import odd_lists
import scripts
import slow_start
import standalone
from matrix import Setup
from results import Results, read_expected
from servers import CACHE, HERE, LOOPBACK, MODULES, NODE, PYTHON, Direct, Fixture, Gateway, NotReady, Server, end_all, free_port, run

SUITE = MODULES / "@modelcontextprotocol/conformance/dist/index.js"
# For one scenario. Where the server is a child, one on Python is started meanwhile, which takes seconds on a busy machine.
SUITE_TIMEOUT_MS = 30000
# A driver takes three seconds, and a minute where many children start on a busy machine; one that hangs is ended.
DRIVER_SECONDS = 180

# How many parts run at once: a set-up, or something as independent, with servers of its own. About half of a part's time
# is waiting, and nginx's is all of it, so that this keeps two cores busy.
AT_ONCE = 5
# The parts that take longest begin first.
LONGEST = [
    "nginx", "identity sign-in", "auth 2026-07-28", "http-two", "http", "stdio-two", "stdio", "stdio-legacy-two", "stdio-legacy", "everything", "console",
    "http-two client", "http-two bridged", "http client", "http bridged",
]  # fmt: skip
# It loads the machine, so that nothing else runs meanwhile.
ALONE = "upgrade"


def server_scenarios(results: Results, setup: Setup, target: Gateway | Direct, folder: pathlib.Path) -> None:
    for revision, scenarios in matrix.SERVER_SCENARIOS.items():
        wanted = [s for s in scenarios if results.wants(f"{setup.name} server {revision} {s}")]
        as_it_is = revision in matrix.SUITE_SPEAKS
        if not wanted or not (as_it_is or setup.whole):
            continue
        port, relayed = free_port(), not as_it_is or target.prefix
        relay = [NODE, HERE / "relay.mjs", "--listen", port, "--target", target.url]
        relay += ["--log", folder / f"wire-{revision}.txt", "--prefix", target.prefix]
        relay += [] if as_it_is else ["--revision", revision]
        with Server("relay", relay, folder / f"relay-{revision}.log") as server:
            server.wait_port(port)
            url = f"http://127.0.0.1:{port}/mcp" if relayed else target.url
            if revision == "2026-07-28" and setup.transport == "stdio":
                warm_up(url)
            arguments = ["server", "--url", url]
            if wanted == scenarios and revision in matrix.WHOLE_REVISION:
                whole_revision(results, f"{setup.name} server {revision}", scenarios, arguments, folder)
                continue
            for scenario in wanted:
                suite(results, f"{setup.name} server {revision} {scenario}", arguments, folder)


def warm_up(url: str) -> None:
    """Makes the gateway start the child that a client which can be asked has to itself: the suite gives one of its
    calls 600 ms, and a child on Python takes longer than that to start."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
    }
    params = {"name": "test_simple_text", "arguments": {}, "_meta": meta}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "test_simple_text",
    }
    request = urllib.request.Request(url, json.dumps(message).encode(), headers)
    urllib.request.urlopen(request, timeout=30).read()


def whole_revision(
    results: Results, name: str, scenarios: list[str], arguments: list[str], folder: pathlib.Path
) -> None:
    """All scenarios of a revision in one run of the suite, which is much faster than one by one."""
    revision = name.split()[-1]
    out = folder / f"server-{revision}"
    out.mkdir()
    command = [NODE, SUITE, *arguments, *matrix.WHOLE_REVISION[revision], "-o", out, "--timeout", SUITE_TIMEOUT_MS]
    seconds = len(scenarios) * SUITE_TIMEOUT_MS / 1000 + 30
    run(command, out / "output.txt", seconds)
    left: dict[str, list[pathlib.Path]] = {}
    for file in out.rglob("checks.json"):
        if m := re.match(r"server-(.+)-\d{4}-\d\d-\d\dT", file.parent.name):
            left.setdefault(m[1], []).append(file)
    for scenario in scenarios:
        results.add(f"{name} {scenario}", failure_in(left.pop(scenario, []), out))
    for scenario in left:
        if not fnmatchcase(scenario, matrix.NOT_OF_THE_FIXTURE):
            results.fail(f"{name} {scenario}: the suite ran it, but run.py does not know it")


def client_scenarios(results: Results, binary: str | None, setup: Setup, kind: str, folder: pathlib.Path) -> None:
    folder.mkdir()
    script = HERE / "client" / ("through_gateway.py" if binary else "drive.py")
    arguments = ["client", "--command", f"{PYTHON} {script}"]
    for revision, scenarios in matrix.CLIENT_SCENARIOS.items():
        for scenario in scenarios:
            env = {"RIG_GATEWAY": binary or "", "RIG_FOLDER": str(folder / f"gateway-{revision}-{scenario}")}
            env |= {"RIG_BESIDE": "1" if setup.beside else "", "RIG_BRIDGED": "1" if kind == "bridged" else ""}
            suite(results, f"{setup.name} {kind} {revision} {scenario}", arguments, folder, LOOPBACK | env)


def auth_scenarios(results: Results, binary: str | None, revision: str, folder: pathlib.Path) -> None:
    """The suite's scenarios of signing in, with the gateway as the OAuth client, or the stock Python SDK."""
    folder.mkdir()
    script = HERE / "client" / ("sign_in_gateway.py" if binary else "sign_in_direct.py")
    # The gateway's client asks by REST, for which the Python that runs this is enough and begins faster.
    arguments = ["client", "--command", f"{sys.executable if binary else PYTHON} {script}"]
    for scenario in matrix.AUTH_SCENARIOS[revision]:
        if binary or scenario not in matrix.AUTH_EXTENSIONS_BEYOND:
            env = {"RIG_GATEWAY": binary or "", "RIG_FOLDER": str(folder / f"gateway-{scenario}")}
            setup = "http" if binary else "direct"
            suite(results, f"{setup} client {revision} auth/{scenario}", arguments, folder, LOOPBACK | env)


def suite(
    results: Results, name: str, arguments: list[str], folder: pathlib.Path, env: dict[str, str] | None = None
) -> None:
    """Runs one scenario, the check called `name`, and reads what the suite left behind."""
    if not results.wants(name):
        return
    _, kind, revision, scenario = name.split()
    out = folder / f"{kind}-{revision}-{scenario.replace('/', '-')}"
    # The suite counts few scenarios as 2025-03-26's, hence --force; it keeps that revision's schema.
    command = [NODE, SUITE, *arguments, "--scenario", scenario, "--spec-version", revision, "--force", "-o", out]
    # A client scenario starts a gateway with its upstreams first.
    command += ["--timeout", SUITE_TIMEOUT_MS * (1 if kind == "server" else 4)]
    out.mkdir()
    began = time.monotonic()
    run(command, out / "output.txt", 4 * SUITE_TIMEOUT_MS / 1000 + 30, env)
    took = time.monotonic() - began

    why = failure_in(list(out.rglob("checks.json")), out)
    if why is None and kind != "server" and "Client exited with code" in (out / "output.txt").read_text():
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


def drivers(results: Results, setup: Setup, target: Gateway | Direct, folder: pathlib.Path) -> None:
    # Node looks for packages beside the importing file, so the scripts are put beside a link to them.
    scripts = folder / "drivers"
    shutil.copytree(HERE / "drivers/node", scripts)
    (scripts / "node_modules").symlink_to(MODULES)
    for driver, command in matrix.DRIVERS.items():
        checks = [c for c in matrix.checks_of(driver, setup) if results.wants(f"{setup.name} driver {driver} {c}")]
        if not checks:
            continue
        program, script, *more = command
        url = target.sse_url if driver.endswith("-sse") else target.url
        arguments = [program, scripts / script, url, *more]
        arguments += ["--only", ",".join(checks)] if results.only else []
        arguments += ["--prefix", target.prefix] if target.prefix else []
        arguments += ["--both-ways"] if setup.both_ways else []
        log = folder / f"driver-{driver}.txt"
        run(arguments, log, DRIVER_SECONDS)
        said = {}
        for line in log.read_text(errors="replace").splitlines():
            if m := re.match(r"(ok|FAIL) (\S+) ?(.*)", line):
                said[m[2]] = None if m[1] == "ok" else m[3] or "failed"
        for check in checks:
            why = said.pop(check, f"it did not come to this check, see {log}")
            results.add(f"{setup.name} driver {driver} {check}", why)
        for check in said:
            if check != "connect":  # comes before every check
                results.fail(f"{setup.name} driver {driver} {check}: run but not known")


def one_setup(results: Results, binary: str | None, setup: Setup, folder: pathlib.Path) -> None:
    if not any(results.wants(name) for name in matrix.names_at(setup)):
        return
    folder.mkdir()
    target: Gateway | Direct
    with Fixture(setup.transport, folder, setup.era, setup.both_ways) as upstream:
        if binary:
            target = Gateway(binary, upstream.config, setup.beside, folder / "gateway")
        else:
            target = Direct(upstream, folder, setup.both_ways)
        through_target(results, setup, target, folder)


def through_target(results: Results, setup: Setup, target: Gateway | Direct, folder: pathlib.Path) -> None:
    with target:
        try:
            target.wait_ready()
        except NotReady as e:
            results.complete = False
            return results.add(f"{setup.name} gateway - start", str(e))
        server_scenarios(results, setup, target, folder)
        drivers(results, setup, target, folder)
        stopped = target.stop()
    if isinstance(target, Gateway) and results.wants(f"{setup.name} gateway - stop"):
        results.add(f"{setup.name} gateway - stop", None if stopped == 0 else f"exit code after SIGTERM: {stopped}")


def all_parts(results: Results, binary: str | None, folder: pathlib.Path) -> dict[str, Callable[[], None]]:
    """The parts of the run, which are independent of each other, by name."""
    setups = matrix.SETUPS if binary else matrix.DIRECT
    kinds = matrix.CLIENT_KINDS if binary else ["client"]
    of_setup, of_clients = partial(one_setup, results, binary), partial(client_scenarios, results, binary)
    parts = {s.name: partial(of_setup, s, folder / s.name) for s in setups}
    for s in filter(lambda s: s.whole, setups):
        parts |= {f"{s.name} {kind}": partial(of_clients, s, kind, folder / f"{s.name}-{kind}") for kind in kinds}
    of_auth = partial(auth_scenarios, results, binary)
    parts |= {f"auth {r}": partial(of_auth, r, folder / f"auth-{r}") for r in matrix.AUTH_SCENARIOS}
    if not binary:
        parts["identity direct"] = partial(identity_clients.direct, results, folder / "identity-direct")
    if binary:
        parts |= scripts.all_scripts(results, binary, folder)
        parts |= {
            "identity sign-in": partial(identity_sign_in.all_ways, results, binary, folder / "identity-sign-in"),
            "identity clients": partial(identity_clients.all_clients, results, binary, folder / "identity-clients"),
            "identity own": partial(identity_own.two_users, results, binary, folder / "identity-own"),
            "everything": partial(everything.everything, results, binary, folder / "everything"),
            "slow-start": partial(slow_start.all_servers, results, binary, folder / "slow-start"),
            "standalone": partial(standalone.all_sdks, results, binary, folder),
            "odd-lists": partial(odd_lists.stock_clients, results, binary, folder),
            "litellm": partial(litellm_dialect.all_answers, results, binary, folder / "litellm"),
            "inspector": partial(inspector.all_ways, results, binary, folder / "inspector"),
            "snippets": partial(scripts.all_snippets, results, binary),
        }
    return parts


def run_parts(results: Results, parts: dict[str, Callable[[], None]]) -> None:
    """Runs the parts at once, those that take longest first, and then the one that wants the machine for itself."""
    order = [name for name in LONGEST if name in parts]
    order += [name for name in parts if name not in (*order, ALONE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for job in [pool.submit(results.timed, name, parts[name]) for name in order]:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_all()
            raise
    if ALONE in parts:
        results.timed(ALONE, parts[ALONE])


def main() -> int:
    about, _, usage = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(description=about, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("gateway", nargs="?", help="the gateway's binary")
    p.add_argument("--direct", action="store_true")
    p.add_argument("--install", action="store_true")
    p.add_argument("--only", default="", metavar="TEXT")
    p.add_argument("--keep", action="store_true")
    a = p.parse_args()
    if sum(map(bool, (a.gateway, a.direct, a.install))) != 1:
        p.error("give either the gateway's binary, --direct or --install")
    binary = os.path.abspath(a.gateway) if a.gateway else None
    # For clients that start it themselves.
    os.environ["RIG_GATEWAY"] = binary or ""
    # Told to end, it stops its servers first, as with Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("told to end"))

    subprocess.run([HERE / "setup.sh", CACHE], check=True, stdin=subprocess.DEVNULL)
    if a.install:
        return 0
    began = time.monotonic()
    lists = [] if a.direct else ["expected_failures.txt", "cannot_hold.txt"]
    results = Results(a.only, [entry for name in lists for entry in read_expected(HERE / name)])
    folder = pathlib.Path(tempfile.mkdtemp(prefix="trunkline-interop-"))
    try:
        run_parts(results, all_parts(results, binary, folder))
    except BaseException:
        a.keep = True
        raise
    finally:
        if a.keep or results.surprises:
            print(f"\nlogs: {folder}")
        else:
            shutil.rmtree(folder)
    print(f"\nin {time.monotonic() - began:.0f} s; longest: {results.longest()}")
    return 0 if results.close() else 1


if __name__ == "__main__":
    sys.exit(main())
