#!/usr/bin/env python3
"""The REST part against its own description: schemathesis makes requests of `/openapi.json`, right ones and wrong ones,
and holds the answers of a real gateway against it, once without keys and once with them.

    openapi.py TRUNKLINE

Runs with a Python that has schemathesis (`setup.sh` has the version). Takes half a minute at most; loopback only, and
the same requests in every run.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from servers import free_port

# Another version makes other requests.
VERSION = "4.32.5"
DEADLINE_S = 30
RUN_S = 120  # of ten on idle cores
KEY = "key-of-the-openapi-run"

# All checks of schemathesis are on.
SETTINGS = """
continue-on-failure = true
request-timeout = 20
# A stream that does not end is read as far as its first event.
max-stream-events = 1

[generation]
deterministic = true
max-examples = 25
database = "none"

# Requests that lead to others are none of this document's.
[phases.stateful]
enabled = false

# What a tool takes is said by the tool, not by this document: its server refuses the rest, which is a 400 here. And a
# call that may take a millisecond ends in time or does not: 504 is the answer to what was asked for.
[[operations]]
include-path-regex = "/tools/call$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "429", "504"]
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]
"""

AUTHORIZED = f"""
[auth.openapi]
bearer = {{ bearer = "{KEY}" }}
"""


def wait_until_ready(base, gateway):
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until and gateway.poll() is None:
        try:
            with urllib.request.urlopen(f"{base}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    sys.exit(f"the gateway does not serve (exit code {gateway.poll()})")


def run(trunkline, folder, keys, settings):
    """Whether schemathesis finds nothing."""
    folder.mkdir()
    base = f"http://127.0.0.1:{free_port()}"
    (folder / "config.json").write_text(json.dumps({
        "listen": base.removeprefix("http://"),
        "state_dir": "state",
        **keys,
        "mcp_servers": {"demo": {"command": "trunkline", "args": ["demo"], "required": True, "pin": "warn"}},
    }))
    (folder / "schemathesis.toml").write_text(settings)
    with open(folder / "gateway.log", "wb") as log:
        gateway = subprocess.Popen([trunkline, "serve", "--config", folder / "config.json"], stderr=log)
    try:
        wait_until_ready(base, gateway)
        schemathesis = pathlib.Path(sys.executable).with_name("schemathesis")
        location = folder / "openapi.json"
        request = urllib.request.Request(f"{base}/openapi.json", headers={"x-api-key": KEY})
        with urllib.request.urlopen(request, timeout=5) as answer:
            location.write_bytes(answer.read())
        # One that hangs is a failure, with what it has written so far.
        command = ["timeout", str(RUN_S), schemathesis, "--config-file", folder / "schemathesis.toml"]
        command += ["run", location, "--url", base, "--no-color"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    finally:
        gateway.terminate()
        code = gateway.wait(timeout=DEADLINE_S)
    found = [line.strip() for line in done.stdout.splitlines() if "total" in line or " passed" in line]
    print(f"{folder.name}: {'; '.join(found)}, schemathesis {done.returncode}, gateway {code}")
    if done.returncode or code:
        print(done.stdout)
        print((folder / "gateway.log").read_text(errors="replace")[-4000:])
    return done.returncode == 0 and code == 0


def main():
    import importlib.metadata
    if (has := importlib.metadata.version("schemathesis")) != VERSION:
        sys.exit(f"this wants schemathesis {VERSION}, not {has}")
    trunkline = pathlib.Path(sys.argv[1]).resolve()
    keys = {"api_keys": [{"name": "admin", "key": KEY, "admin": True}]}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        results = [
            run(trunkline, folder / "without-keys", {}, SETTINGS),
            run(trunkline, folder / "with-keys", keys, SETTINGS + AUTHORIZED),
        ]
    if not all(results):
        sys.exit(1)
    print("the answers are those of the document")


if __name__ == "__main__":
    main()
