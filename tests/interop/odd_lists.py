"""Lists with malformed items, and links that two servers could have meant: stock clients before a gateway of three
servers, one written by hand (`fixture/malformed_server.py`) and server-everything twice."""

import json
import pathlib
import re
import shutil

from results import Results
from servers import HERE, MODULES, NODE, NotReady, PYTHON, Server, free_port, get_status, run

PY = [PYTHON, HERE / "drivers/py/odd_lists.py"]
TS = [NODE, "odd_lists.mjs"]
CLIENTS = {
    "py2-legacy": [*PY, "--era", "legacy"],
    "py2-modern": [*PY, "--era", "2026-07-28"],
    "ts2-legacy": [*TS, "--era", "legacy"],
    "ts2-modern": [*TS, "--era", "2026-07-28"],
}
CHECKS = ["lists", "links"]
CLIENT_SECONDS = 60


def stock_clients(results: Results, binary: str, folder: pathlib.Path) -> None:
    names = {c: [f"odd-lists driver {c} {check}" for check in CHECKS] for c in CLIENTS}
    if not any(results.wants(name) for of_client in names.values() for name in of_client):
        return
    # Node looks for packages beside the importing file.
    scripts = folder / "odd-lists"
    shutil.copytree(HERE / "drivers/node", scripts)
    (scripts / "node_modules").symlink_to(MODULES)
    everything = MODULES / "@modelcontextprotocol/server-everything/dist/index.js"
    stdio = {"command": str(NODE), "args": [str(everything), "stdio"], "required": True}
    malformed = {"command": str(PYTHON), "args": [str(HERE / "fixture/malformed_server.py")], "required": True}
    servers = {"everything": stdio, "other": stdio, "malformed": malformed}
    config = scripts / "config.json"
    config.write_text(json.dumps({"mcp_servers": servers}, indent=2))
    port = free_port()
    command = [binary, "serve", "--config", config, "--listen", f"127.0.0.1:{port}"]
    try:
        with Server("gateway", command, scripts / "gateway.log") as gateway:
            gateway.wait_for("ready", lambda: get_status(f"http://127.0.0.1:{port}/readyz") == 200)
            for client in CLIENTS:
                one_client(results, client, f"http://127.0.0.1:{port}/mcp", scripts)
    except NotReady as e:
        results.complete = False
        results.add("odd-lists gateway - start", str(e))


def one_client(results: Results, client: str, url: str, scripts: pathlib.Path) -> None:
    program, script, *more = CLIENTS[client]
    log = scripts / f"{client}.txt"
    run([program, scripts / script, url, *more], log, CLIENT_SECONDS)
    said = dict.fromkeys(CHECKS, f"it did not come to this check, see {log}")
    for line in log.read_text(errors="replace").splitlines():
        if m := re.match(r"(ok|FAIL) (\S+) ?(.*)", line):
            said[m[2]] = "" if m[1] == "ok" else m[3] or "failed"
    for check in CHECKS:
        if results.wants(f"odd-lists driver {client} {check}"):
            results.add(f"odd-lists driver {client} {check}", said[check] or None)
