"""The processes of an interoperability run: started, waited for, and always stopped."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from typing import Any, Callable

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(
    os.environ.get("RIG_RUN")
    or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "trunkline-interop")
)
NODE = CACHE / "bin/node"
PYTHON = CACHE / "venv/bin/python"
MODULES = CACHE / "npm/node_modules"
# Given to Node programs that would listen on every interface.
LOOPBACK = {"NODE_OPTIONS": f"--import={HERE / 'loopback.mjs'}"}

# A tool of the fixture that is offered when all are.
LAST_TOOL = "big"

# How long a server may take to start: server-everything's child needs a second or two on a busy machine.
START_SECONDS = 30
# The gateway drains for up to 10 s when it is told to stop.
STOP_SECONDS = 15


# Everything here is on this machine, whatever proxy the user has.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
# Node keeps there what it has compiled: the suite alone is started more than a hundred times.
os.environ["NODE_COMPILE_CACHE"] = str(CACHE / "node-compiled")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class NotReady(Exception):
    """A server did not become what was waited for; with the end of its log."""


# The processes that run now, each the leader of its group; None once no more may start.
alive: set[subprocess.Popen[bytes]] | None = set()
alive_lock = threading.Lock()


def start(command: list[Any], log: pathlib.Path, env: dict[str, str] | None) -> subprocess.Popen[bytes]:
    with alive_lock:
        if alive is None:
            raise SystemExit("told to end")
        with open(log, "w") as out:
            process = subprocess.Popen(
                [str(c) for c in command],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=os.environ | (env or {}), start_new_session=True,
            )
        alive.add(process)
        return process


def ended(process: subprocess.Popen[bytes], number: int) -> None:
    """Sends that signal to what is left of the process's group, and waits for the process."""
    for signal_number in (number, signal.SIGKILL):
        try:
            os.killpg(process.pid, signal_number)
        except ProcessLookupError:
            pass
        try:
            process.wait(STOP_SECONDS)
            break
        except subprocess.TimeoutExpired:
            pass
    with alive_lock:
        if alive is not None:
            alive.discard(process)


def end_all() -> None:
    """Tells every process to end, and lets no other start, so that whoever waits for one goes on."""
    global alive
    with alive_lock:
        processes, alive = alive or set(), None
    for process in processes:
        try:
            os.killpg(process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass


class Server:
    """A child process in a process group of its own, which ends with the `with` block."""

    def __init__(self, name: str, command: list[Any], log: pathlib.Path, env: dict[str, str] | None = None) -> None:
        self.name, self.log = name, log
        self.command, self.env = command, env

    def __enter__(self) -> "Server":
        self.process = start(self.command, self.log, self.env)
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def stop(self) -> int | str:
        """Asks it to stop; its exit code, or what happened instead."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return f"still running {STOP_SECONDS} s after SIGTERM"
        finally:
            ended(self.process, signal.SIGKILL)  # and whatever it left behind

    def wait_for(self, what: str, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        stop, last = time.monotonic() + seconds, ""
        while time.monotonic() < stop:
            if self.process.poll() is not None:
                last = f"it ended with {self.process.returncode}"
                break
            try:
                if ready():
                    return
            except (OSError, ValueError) as e:
                last = str(e)
            time.sleep(0.1)
        tail = self.log.read_text(errors="replace")[-2000:]
        raise NotReady(f"{self.name}: not {what} within {seconds:.0f} s ({last})\n{tail}")

    def wait_port(self, port: int) -> "Server":
        def ready() -> bool:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True

        self.wait_for(f"listening on port {port}", ready)
        return self

    def wait_path(self, path: pathlib.Path) -> None:
        self.wait_for(f"listening at {path}", path.exists)


def run(command: list[Any], log: pathlib.Path, seconds: float, env: dict[str, str] | None = None) -> int | None:
    """Runs a command to its end and gives its exit code, or None if it took too long. Whatever
    happens, it and what it started in its process group are told to end."""
    process = start(command, log, env)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        ended(process, signal.SIGTERM)


class Fixture:
    """The fixture over one transport; over stdio it is the gateway that starts it. With an era it
    knows only that one, 'modern' or 'legacy'. Through stdio it is over HTTP, behind `trunkline stdio`,
    which the gateway starts."""

    def __init__(self, transport: str, folder: pathlib.Path, era: str = "", both_ways: bool = False) -> None:
        script = HERE / "fixture/fixture_server.py"
        options = ["--both-ways"] if both_ways else []
        self.servers: list[tuple[Server, int | pathlib.Path]] = []
        if transport == "stdio":
            (folder / "seen").touch()
            forks = folder / "forks"
            command = [PYTHON, script, "stdio", *options, "--seen", folder / "seen", "--fork-at", forks]
            self.servers.append((Server("fixture over stdio", command, folder / "fixture-stdio.log"), forks))
            # Neither needs a package, and without them each starts in a few milliseconds.
            command = [PYTHON, "-I", "-S", HERE / "fixture/stdio_child.py", forks]
            if era:
                command = [PYTHON, "-I", "-S", HERE / "fixture/one_era.py", era, *command]
            program, *arguments = map(str, command)
            self.config: dict[str, Any] = {"command": program, "args": arguments}
            return
        through, transport = transport == "through-stdio", "http" if transport == "through-stdio" else transport
        port = free_port()
        command = [PYTHON, script, transport, "--port", port, *options]
        self.servers.append((Server(f"fixture over {transport}", command, folder / f"fixture-{transport}.log"), port))
        path = {"http": "mcp", "sse": "sse"}[transport]
        url = f"http://127.0.0.1:{port}/{path}"
        if era:
            port = free_port()
            refused = {"modern": "legacy", "legacy": "modern"}[era]
            relay = [NODE, HERE / "relay.mjs", "--listen", port, "--target", url, "--refuse", refused]
            relay += ["--log", folder / "wire-upstream.txt"]
            self.servers.append((Server("relay to the fixture", relay, folder / "relay-upstream.log"), port))
            url = f"http://127.0.0.1:{port}/{path}"
        self.config = {"url": url, "transport": transport}
        if through:
            inner = folder / "through-stdio.json"
            inner.write_text(json.dumps({"mcp_servers": {"fixture": self.config}}))
            self.config = {"command": "trunkline", "args": ["stdio", "--config", str(inner)]}

    def __enter__(self) -> "Fixture":
        with ExitStack() as stack:
            for server, place in self.servers:
                stack.enter_context(server)
                server.wait_path(place) if isinstance(place, pathlib.Path) else server.wait_port(place)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stack.close()


class Gateway(Server):
    """The gateway with an upstream called fixture, and if wanted server-everything over stdio
    beside it, so that names are prefixed. `more` stands in its configuration beside them."""

    def __init__(
        self,
        binary: str,
        upstream: dict[str, Any],
        beside: bool,
        folder: pathlib.Path,
        env: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.sse_url = self.url  # told apart by what the client sends
        self.prefix = "fixture-" if beside else ""
        upstreams: dict[str, Any] = {"fixture": {"required": True} | upstream}
        if beside:
            script = MODULES / "@modelcontextprotocol/server-everything/dist/index.js"
            upstreams["everything"] = {"command": str(NODE), "args": [str(script), "stdio"], "required": True}
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "config.json"
        config.write_text(json.dumps({"mcp_servers": upstreams} | more, indent=2))
        command = [binary, "serve", "--config", config, "--listen", f"127.0.0.1:{self.port}"]
        super().__init__("gateway", command, folder / "gateway.log", env)

    def wait_answered(self) -> None:
        """Until every upstream has answered, whatever it offers."""
        self.wait_for("ready", lambda: get_status(f"http://127.0.0.1:{self.port}/readyz") == 200)

    def wait_ready(self) -> None:
        self.wait_answered()
        self.wait_for("offering the tools", lambda: self.prefix + LAST_TOOL in list_tools(self.url))


class Direct:
    """Nothing in between: the fixture itself, which serves HTTP+SSE in a process of its own."""

    prefix = ""

    def __init__(self, upstream: Fixture, folder: pathlib.Path, both_ways: bool) -> None:
        self.sse = Fixture("sse", folder, both_ways=both_ways)
        self.url, self.sse_url = upstream.config["url"], self.sse.config["url"]

    def __enter__(self) -> "Direct":
        self.sse.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self.sse.__exit__()

    def wait_ready(self) -> None:
        assert LAST_TOOL in list_tools(self.url)

    def stop(self) -> int | str:
        return 0


def get_status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as e:
        return e.code


def list_tools(url: str) -> list[str]:
    """The names of an endpoint's tools, asked for by hand as a 2025-11-25 client."""
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

    def post(message: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(url, json.dumps({"jsonrpc": "2.0"} | message).encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            if session := answer.headers.get("Mcp-Session-Id"):
                headers["Mcp-Session-Id"] = session
            text = answer.read().decode()
        for line in text.splitlines():
            line = line.removeprefix("data:").strip()
            if line.startswith("{") and "result" in (reply := json.loads(line)):
                return reply["result"]
        return {}

    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "interop", "version": "1"}}
    post({"id": 1, "method": "initialize", "params": client})
    headers["MCP-Protocol-Version"] = "2025-11-25"
    post({"method": "notifications/initialized"})
    tools = post({"id": 2, "method": "tools/list"}).get("tools", [])
    urllib.request.urlopen(urllib.request.Request(url, headers=headers, method="DELETE"), timeout=10).close()
    return [t["name"] for t in tools]
