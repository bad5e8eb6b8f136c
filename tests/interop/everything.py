"""server-everything, which registers tools only for clients that declare what these need: each stock client lists through
the gateway what it lists directly, and beside another server the same under prefixed names."""

import json
import pathlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import matrix
from results import Results
from servers import HERE, LOOPBACK, MODULES, NODE, NotReady, Server, free_port, get_status, run

SCRIPT = MODULES / "@modelcontextprotocol/server-everything/dist/index.js"
CLIENT_SECONDS = 60
# Each waits for two seconds until the server has registered its tools, and for little else.
CLIENTS_AT_ONCE = 4
KINDS = ("tools", "prompts", "resources", "templates")
SETUPS = ("everything-http", "everything-stdio", "everything-http-two", "everything-stdio-two")


def everything(results: Results, binary: str, folder: pathlib.Path) -> None:
    wanted = [s for s in SETUPS if any(results.wants(f"{s} driver {d} lists") for d in matrix.DRIVERS)]
    if not wanted:
        return
    folder.mkdir()
    shutil.copytree(HERE / "drivers/node", folder / "drivers")
    (folder / "drivers/node_modules").symlink_to(MODULES)
    port = free_port()
    try:
        with Server("everything", [NODE, SCRIPT, "streamableHttp"], folder / "server.log", LOOPBACK | {"PORT": str(port)}) as server:
            server.wait_port(port)
            url = f"http://127.0.0.1:{port}/mcp"
            # The server has sessions alone.
            direct = {name: listed(name.split("-")[0] + "-legacy", url, folder, f"direct-{name}") for name in ("py2", "ts2")}
            for setup in wanted:
                through_gateway(results, setup, binary, url, direct, folder)
    except NotReady as e:
        results.complete = False
        results.add(f"{SETUPS[0]} gateway - start", str(e))


def through_gateway(
    results: Results, setup: str, binary: str, url: str, direct: dict[str, Any], folder: pathlib.Path
) -> None:
    own = free_port()
    over_http = {"url": url, "transport": "http", "required": True}
    over_stdio = {"command": str(NODE), "args": [str(SCRIPT), "stdio"], "required": True}
    servers: dict[str, Any] = {"everything": over_http if "http" in setup else over_stdio}
    prefix = ""
    if setup.endswith("-two"):
        servers["demo"] = {"command": "trunkline", "args": ["demo"], "required": True}
        prefix = "everything-"
    config = folder / f"{setup}.json"
    config.write_text(json.dumps({"mcp_servers": servers}))
    serve = [binary, "serve", "--config", config, "--listen", f"127.0.0.1:{own}"]
    with Server("gateway", serve, folder / f"{setup}.log") as gateway:
        gateway.wait_for("ready", lambda: get_status(f"http://127.0.0.1:{own}/readyz") == 200)
        wanted = [d for d in matrix.DRIVERS if results.wants(f"{setup} driver {d} lists")]
        with ThreadPoolExecutor(CLIENTS_AT_ONCE) as pool:
            found = pool.map(lambda d: listed(d, f"http://127.0.0.1:{own}/mcp", folder, f"{setup}-{d}"), wanted)
            for driver, lists in zip(wanted, found):
                results.add(f"{setup} driver {driver} lists", difference(direct[driver.split("-")[0]], lists, prefix))


def listed(driver: str, url: str, folder: pathlib.Path, log: str) -> Any:
    """What that client lists, by kind."""
    program, _, *more = matrix.DRIVERS[driver]
    script = HERE / "drivers/py/lists.py" if driver.startswith("py") else folder / "drivers/lists_ts2.mjs"
    output = folder / f"{log}.txt"
    run([program, script, url, *more], output, CLIENT_SECONDS)
    lines = [line for line in output.read_text(errors="replace").splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {"error": output.read_text(errors="replace")[-500:]}


def difference(direct: Any, found: Any, prefix: str) -> str | None:
    if "error" in direct or "error" in found:
        return f"{direct.get('error', '')} {found.get('error', '')}"
    for kind in KINDS:
        mark = prefix if kind in ("tools", "prompts") else ""
        named = [n.removeprefix(mark) for n in found[kind] if n.startswith(mark)]
        # What stands beside it has resources of its own.
        named = [n for n in named if n in direct[kind]] if prefix and not mark else named
        if sorted(named) != sorted(direct[kind]):
            return f"{kind}: directly {sorted(direct[kind])}, through the gateway {sorted(named)}"
    return None if "trigger-sampling-request" in direct["tools"] else "no tool is there by capability"
