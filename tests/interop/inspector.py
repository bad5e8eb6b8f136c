"""The Inspector's command line, as users point it at the gateway: a command, on a configuration of its own or in front of
a gateway that runs, and both kinds of URL."""

import json
import os
import pathlib
from typing import Any

from results import Results
from servers import CACHE, LOOPBACK, NODE, NotReady, Server, free_port, get_status, run

SCRIPT = CACHE / "inspector/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
# Each starts Node, which takes one or two.
SECONDS = 60
ERAS = ("legacy", "modern")
# HTTP+SSE has only the handshake era.
WAYS = {"inspector-config": ERAS, "inspector-url": ERAS, "inspector-http": ERAS, "inspector-sse": ("legacy",)}
CHECKS: dict[str, list[str]] = {
    "tools-list": ["--method", "tools/list"],
    "tools-call": ["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=héllo"],
    "resources-list": ["--method", "resources/list"],
    "prompts-list": ["--method", "prompts/list"],
}


def all_ways(results: Results, binary: str, folder: pathlib.Path) -> None:
    names = [name(way, era, check) for way, eras in WAYS.items() for era in eras for check in CHECKS]
    if not any(map(results.wants, names)):
        return
    folder.mkdir()
    config = folder / "config.json"
    config.write_text(json.dumps({"mcp_servers": {"demo": {"command": "trunkline", "args": ["demo"], "required": True}}}))
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    targets: dict[str, list[Any]] = {
        "inspector-config": [binary, "stdio", "-c", config],  # `--config` would be the Inspector's own
        "inspector-url": [binary, "stdio", "--url", base],
        "inspector-http": [f"{base}/mcp", "--transport", "http"],
        "inspector-sse": [f"{base}/sse", "--transport", "sse"],
    }
    serve = [binary, "serve", "--config", config, "--listen", f"127.0.0.1:{port}"]
    try:
        with Server("gateway", serve, folder / "gateway.log") as gateway:
            gateway.wait_for("ready", lambda: get_status(f"{base}/readyz") == 200)
            for way, eras in WAYS.items():
                for era in eras:
                    one_way(results, way, era, targets[way], folder)
    except NotReady as e:
        results.complete = False
        results.add("inspector gateway - start", str(e))


def name(way: str, era: str, check: str) -> str:
    return f"{way} driver {era} {check}"


def one_way(results: Results, way: str, era: str, target: list[Any], folder: pathlib.Path) -> None:
    # It keeps what it knows in the user's folder, which is none of ours.
    env = LOOPBACK | {"HOME": str(folder), "PATH": f"{CACHE / 'bin'}:{os.environ['PATH']}"}
    for check, words in CHECKS.items():
        if results.wants(name(way, era, check)):
            log = folder / f"{way}-{era}-{check}.txt"
            answer = folder / f"{way}-{era}-{check}.json"
            command = [NODE, SCRIPT, "--cli", *target, "--protocol-era", era, "--output", answer, *words]
            code = run(command, log, SECONDS, env)
            results.add(name(way, era, check), wrong(check, code, answer, log))


def wrong(check: str, code: int | None, answer: pathlib.Path, log: pathlib.Path) -> str | None:
    if code != 0 or not answer.exists():
        return f"it ended with {code}, see {log}\n{log.read_text(errors='replace')[-500:]}"
    result = json.loads(answer.read_text())
    if check == "tools-call":
        said = result.get("content", [{}])[0].get("text")
        return None if said == "héllo" else f"it has {said!r}"
    key = check.removesuffix("-list")
    return None if result.get(key) else f"no {key} in {result}"
