"""Stdio servers on the installed SDKs that take seconds to begin: by REST and as a stock client, one lists and calls them all
through the gateway. Some read nothing until then; of the others something reads that answers as late, as a wrapper does."""

import json
import pathlib
import re
import shutil
from typing import Any

from results import Results
from servers import CACHE, HERE, MODULES, NODE, NotReady, PYTHON, Server, free_port, get_status, run
from standalone import SDKS, ask

SETUP = "slow-start"
SECONDS = 7
WRAPPERS = {
    "deaf": f'sleep {SECONDS}; exec "$0" "$@"',
    "read-early": f'cat | (sleep {SECONDS}; exec "$0" "$@")',
}
# The ways in which a server on the TypeScript SDK 2.x is made.
TS_WAYS = ("serve", "connect")
CLIENTS = {"py2-auto": "auto", "py2-legacy": "legacy"}
CLIENT_SECONDS = 90
NOISE = "validation error"


def all_servers(results: Results, binary: str, folder: pathlib.Path) -> None:
    servers = {
        f"{name}-{how}": {"command": "sh", "args": ["-c", text.replace("$", "$$"), *command], "required": True}
        for name, command in commands(folder).items()
        for how, text in WRAPPERS.items()
    }
    checks = [f"{SETUP} rest - {check}-{name}" for name in servers for check in ("list", "call", "log")]
    checks += [f"{SETUP} driver {c} {check}-{name}" for c in CLIENTS for name in servers for check in ("list", "call")]
    if not any(map(results.wants, checks)):
        return
    folder.mkdir()
    # Node looks for packages beside the importing file.
    shutil.copy(HERE / "fixture/ts2_server.mjs", folder)
    (folder / "node_modules").symlink_to(MODULES)
    port = free_port()
    config = folder / "config.json"
    config.write_text(json.dumps({"mcp_servers": servers}))
    serve = [binary, "serve", "--config", config, "--listen", f"127.0.0.1:{port}"]
    base = f"http://127.0.0.1:{port}"
    tools = {f"{name}-{'echo' if name.startswith('everything') else 'example_tool'}": name for name in servers}
    try:
        with Server("gateway", serve, folder / "gateway.log") as gateway:
            gateway.wait_for("ready", lambda: get_status(f"{base}/readyz") == 200, 90)
            by_rest(results, base, tools)
            for client in CLIENTS:
                by_client(results, base, client, tools, folder)
    except NotReady as e:
        results.complete = False
        results.add(f"{SETUP} gateway - start", str(e))


def commands(folder: pathlib.Path) -> dict[str, list[str]]:
    """How each server is started, by its name."""
    script = str(HERE / "fixture/standalone_server.py")
    everything = str(MODULES / "@modelcontextprotocol/server-everything/dist/index.js")
    return {
        **{f"py-{v.replace('.', '_')}": [str(CACHE / e / "bin/python"), script, "stdio"] for v, e in SDKS.items()},
        **{f"ts-2_x-{way}": [str(NODE), str(folder / "ts2_server.mjs"), way] for way in TS_WAYS},
        "everything": [str(NODE), everything, "stdio"],
    }


def by_rest(results: Results, base: str, tools: dict[str, str]) -> None:
    listed = [tool["name"] for tool in ask(f"{base}/mcp/tools/list")["tools"]]
    status = {up["server"]: up for up in ask(f"{base}/status")["upstreams"]}
    for tool, name in tools.items():
        results.add(f"{SETUP} rest - list-{name}", None if tool in listed else f"it lists {listed}")
        said = ask(f"{base}/mcp/tools/call", {"name": tool, "arguments": {"message": "héllo"}})
        well = "héllo" in said.get("content", [{}])[0].get("text", "") and not said.get("isError")
        results.add(f"{SETUP} rest - call-{name}", None if well else json.dumps(said))
        # What the question about its era makes it complain of is not its own fault.
        noise = [line for line in status[name]["stderr"] if NOISE in line or "For further information" in line]
        results.add(f"{SETUP} rest - log-{name}", f"{len(noise)} lines: {noise[:3]}" if noise else None)


def by_client(results: Results, base: str, client: str, tools: dict[str, str], folder: pathlib.Path) -> None:
    log = folder / f"driver-{client}.txt"
    script: list[Any] = [PYTHON, HERE / "drivers/py/example_tool.py"]
    run([*script, f"{base}/mcp", "--era", CLIENTS[client], *tools], log, CLIENT_SECONDS)
    said = dict(re.findall(r"^(?:ok|FAIL) (\S+) ?(.*)$", log.read_text(errors="replace"), re.M))
    for tool, name in tools.items():
        for kind in ("list", "call"):
            why = said.get(f"{kind}-{tool}", f"it did not come to this check, see {log}")
            results.add(f"{SETUP} driver {client} {kind}-{name}", why or None)
