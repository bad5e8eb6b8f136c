"""The standalone server of users, on each Python SDK that is installed, behind the gateway with its URL as they
write it: with the slash at the end and without. Some SDKs redirect the one, some the other."""

import json
import pathlib
import re
import urllib.error
import urllib.request
from typing import Any

from results import Results
from servers import CACHE, HERE, NotReady, PYTHON, Server, free_port, get_status, run

# The folder of the environment that `setup.sh` makes, by the SDK's version.
SDKS = {"1.9.4": "venv-1.9.4", "1.20.0": "venv-1.20.0", "1.30.0": "venv-1.30.0", "2.x": "venv"}
# Named as users have it, and the way in which its URL ends.
SERVERS = {"my_mcp_server": "", "with_slash": "/"}
TOOLS = [f"{server}-example_tool" for server in SERVERS]
CLIENT_SECONDS = 60


def all_sdks(results: Results, binary: str, folder: pathlib.Path) -> None:
    for version, environment in SDKS.items():
        setup = f"standalone-{version}"
        names = {f"{kind}-{tool}": kind for tool in TOOLS for kind in ("list", "call")}
        checks = [f"{setup} {by} {check}" for by in ("rest -", "driver py2-auto") for check in names]
        if any(map(results.wants, checks)):
            one_sdk(results, setup, binary, environment, folder / setup)


def one_sdk(results: Results, setup: str, binary: str, environment: str, folder: pathlib.Path) -> None:
    folder.mkdir()
    port, own = free_port(), free_port()
    script = HERE / "fixture/standalone_server.py"
    command = [CACHE / environment / "bin/python", script, port]
    config = folder / "config.json"
    entry = {"transport": "http", "description": "My custom MCP server", "required": True}
    url = f"http://localhost:{port}/mcp"
    config.write_text(json.dumps({"mcp_servers": {n: entry | {"url": url + end} for n, end in SERVERS.items()}}))
    serve = [binary, "serve", "--config", config, "--listen", f"127.0.0.1:{own}"]
    base = f"http://127.0.0.1:{own}"
    try:
        with Server("standalone server", command, folder / "server.log") as server:
            server.wait_port(port)
            with Server("gateway", serve, folder / "gateway.log") as gateway:
                gateway.wait_for("ready", lambda: get_status(f"{base}/readyz") == 200)
                for check, why in by_rest(base).items():
                    results.add(f"{setup} rest - {check}", why)
                by_client(results, setup, f"{base}/mcp", folder)
    except NotReady as e:
        results.complete = False
        results.add(f"{setup} gateway - start", str(e))


def by_rest(base: str) -> dict[str, str | None]:
    """What is wrong with each list and call, or None."""
    listed = [tool["name"] for tool in ask(f"{base}/mcp/tools/list")["tools"]]
    found: dict[str, str | None] = {}
    for tool in TOOLS:
        found[f"list-{tool}"] = None if tool in listed else f"it lists {listed}"
        said = ask(f"{base}/mcp/tools/call", {"name": tool, "arguments": {"message": "héllo"}})
        well = said.get("content", [{}])[0].get("text") == "Processed: héllo" and not said.get("isError")
        found[f"call-{tool}"] = None if well else json.dumps(said)
    return found


def ask(url: str, body: Any = None) -> Any:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as e:
        return {"tools": [], "status": e.code, "text": e.read().decode(errors="replace")}


def by_client(results: Results, setup: str, url: str, folder: pathlib.Path) -> None:
    log = folder / "driver.txt"
    run([PYTHON, HERE / "drivers/py/example_tool.py", url, *TOOLS], log, CLIENT_SECONDS)
    said = dict(re.findall(r"^(?:ok|FAIL) (\S+) ?(.*)$", log.read_text(errors="replace"), re.M))
    for check in (f"{kind}-{tool}" for tool in TOOLS for kind in ("list", "call")):
        why = said.get(check, f"it did not come to this check, see {log}")
        results.add(f"{setup} driver py2-auto {check}", why or None)
