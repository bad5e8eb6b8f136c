"""Stdio servers on the installed SDKs that take seconds to begin: a client through the gateway lists and calls them all.
Some read nothing until then; of the others something reads that answers as late, as a wrapper does."""

import json
import pathlib

from results import Results
from servers import CACHE, HERE, MODULES, NODE, NotReady, Server, free_port, get_status
from standalone import SDKS, ask

SETUP = "slow-start"
SECONDS = 7
WRAPPERS = {
    "deaf": f'sleep {SECONDS}; exec "$0" "$@"',
    "read-early": f'cat | (sleep {SECONDS}; exec "$0" "$@")',
}
NOISE = "validation error"


def all_servers(results: Results, binary: str, folder: pathlib.Path) -> None:
    script = str(HERE / "fixture/standalone_server.py")
    everything = str(MODULES / "@modelcontextprotocol/server-everything/dist/index.js")
    commands = {f"py-{v.replace('.', '_')}": [str(CACHE / e / "bin/python"), script, "stdio"] for v, e in SDKS.items()}
    commands["everything"] = [str(NODE), everything, "stdio"]
    servers = {
        f"{name}-{how}": {"command": "sh", "args": ["-c", text.replace("$", "$$"), *command]}
        for name, command in commands.items()
        for how, text in WRAPPERS.items()
    }
    checks = [f"{SETUP} rest - {check}-{name}" for name in servers for check in ("list", "call", "log")]
    if not any(map(results.wants, checks)):
        return
    folder.mkdir()
    port = free_port()
    config = folder / "config.json"
    config.write_text(json.dumps({"mcp_servers": {n: s | {"required": True} for n, s in servers.items()}}))
    serve = [binary, "serve", "--config", config, "--listen", f"127.0.0.1:{port}"]
    base = f"http://127.0.0.1:{port}"
    try:
        with Server("gateway", serve, folder / "gateway.log") as gateway:
            gateway.wait_for("ready", lambda: get_status(f"{base}/readyz") == 200, 90)
            listed = [tool["name"] for tool in ask(f"{base}/mcp/tools/list")["tools"]]
            status = {up["server"]: up for up in ask(f"{base}/status")["upstreams"]}
            for name in servers:
                one(results, base, name, listed, status[name])
    except NotReady as e:
        results.complete = False
        results.add(f"{SETUP} gateway - start", str(e))


def one(results: Results, base: str, name: str, listed: list[str], status: dict[str, object]) -> None:
    is_everything = name.startswith("everything")
    tool = f"{name}-{'echo' if is_everything else 'example_tool'}"
    results.add(f"{SETUP} rest - list-{name}", None if tool in listed else f"it lists {listed}")
    said = ask(f"{base}/mcp/tools/call", {"name": tool, "arguments": {"message": "héllo"}})
    well = "héllo" in said.get("content", [{}])[0].get("text", "") and not said.get("isError")
    results.add(f"{SETUP} rest - call-{name}", None if well else json.dumps(said))
    # What the question about its era makes it complain of is not its own fault.
    noise = [line for line in status["stderr"] if NOISE in line or "For further information" in line]
    results.add(f"{SETUP} rest - log-{name}", f"{len(noise)} lines: {noise[:3]}" if noise else None)
