#!/usr/bin/env python3
"""An upgrade under load: upgrade.py GATEWAY_BINARY [--slow SECONDS] [--rate CALLS_PER_SECOND]

Clients call the gateway at a rate (1,000 a second), half of them over a new connection for each call, the
others over connections and sessions that they keep. Meanwhile slow calls (10 s) run, over REST and, with
progress, over Streamable HTTP, and listeners hold streams. Then

1. SIGUSR2 hands over to another process, over TCP;
2. the same over a Unix socket, twice in a row;
3. the gateway is ended and started again as a service manager does it that holds the socket.

No call may fail, and no connection may be refused, reset, or closed with a request unanswered. A request is
never sent again: what HTTP allows a client to send again counts as lost here. A kept connection may end only
behind an answer that says `Connection: close`, or while no request is on it. Needs Python alone; takes about
a minute."""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from servers import free_port

DEADLINE = 30.0
# Of each kind; half of the load is theirs, the other half that of new connections.
KEPT_CLIENTS = SESSIONS = 20
NEW_CLIENTS = 40
LISTENERS = 5


class Lost(Exception):
    """What no client may meet with."""


class Address:
    """Where the gateway is."""

    def __init__(self, host: str | None = None, port: int = 0, path: str | None = None):
        self.host, self.port, self.path = host, port, path

    async def connect(self):
        if self.path:
            return await asyncio.open_unix_connection(self.path)
        return await asyncio.open_connection(self.host, self.port)


class Connection:
    """One connection, which sends a request only when the one before has been answered."""

    def __init__(self, address: Address):
        self.address, self.reader, self.writer = address, None, None
        self.graceful = 0

    async def send(self, method: str, path: str, body: dict | None = None, headers: dict | None = None):
        if self.writer is None:
            try:
                self.reader, self.writer = await self.address.connect()
            except OSError as error:
                raise Lost(f"a connection is refused: {error}") from error
        elif self.reader.at_eof():
            # It has ended while nothing was on it, and the client knows.
            self.close()
            self.graceful += 1
            return await self.send(method, path, body, headers)
        content = b"" if body is None else json.dumps(body).encode()
        fields = {"Host": "localhost", "Accept": "application/json, text/event-stream", **(headers or {})}
        if body is not None:
            fields |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content)

    async def head(self) -> tuple[int, dict]:
        try:
            text = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Lost(f"a request has no answer: {type(error).__name__} {error}") from error
        first, *lines = text.decode().split("\r\n")
        fields = (line.split(": ", 1) for line in lines if line)
        return int(first.split()[1]), {name.lower(): value for name, value in fields}

    async def body(self, headers: dict) -> bytes:
        try:
            if headers.get("transfer-encoding") == "chunked":
                return b"".join([piece async for piece in self.pieces()])
            if headers.get("content-type", "").startswith("text/event-stream"):
                # It ends with its connection. One that is reset is an error here.
                return await self.reader.read()
            return await self.reader.readexactly(int(headers.get("content-length", 0)))
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Lost(f"an answer is cut off: {error}") from error

    async def pieces(self):
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)

    async def exchange(self, method: str, path: str, body=None, headers=None) -> tuple[int, dict, bytes]:
        await self.send(method, path, body, headers)
        status, answered = await self.head()
        content = await self.body(answered)
        if answered.get("connection") == "close":
            self.close()
            self.graceful += 1
        return status, answered, content

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


def payload(content: bytes) -> dict:
    """The message, of JSON or the last event."""
    text = content.decode()
    if text.startswith("{"):
        return json.loads(text)
    data = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return json.loads(data[-1])


def tool_call(name: str, arguments: dict, meta: dict | None = None) -> dict:
    params = {"name": name, "arguments": arguments} | ({"_meta": meta} if meta else {})
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


async def open_session(connection: Connection) -> dict:
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "load", "version": "1"}}
    initialize = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client}
    status, headers, content = await connection.exchange("POST", "/mcp", initialize)
    if status != 200:
        raise Lost(f"initialize: {status} {content[:200]}")
    session = {"Mcp-Session-Id": headers["mcp-session-id"], "MCP-Protocol-Version": "2025-06-18"}
    initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    await connection.exchange("POST", "/mcp", initialized, session)
    return session


class Load:
    """All clients, until they are told to end."""

    def __init__(self, address: Address, rate: float):
        self.address, self.over, self.rate = address, asyncio.Event(), rate
        self.calls, self.lost, self.graceful, self.streams_again = 0, [], 0, 0
        self.latencies: list[tuple[float, float]] = []
        self.tasks: list[asyncio.Task] = []
        self.listening = 0

    def begin(self):
        kinds = [self.kept] * KEPT_CLIENTS + [self.in_session] * SESSIONS + [self.new] * NEW_CLIENTS
        interval = len(kinds) / self.rate
        for number, kind in enumerate(kinds):
            self.tasks.append(asyncio.create_task(self.guard(kind(interval, interval * number / len(kinds)))))
        for _ in range(LISTENERS):
            self.tasks.append(asyncio.create_task(self.guard(self.listener())))

    async def guard(self, client):
        try:
            await client
        except Exception as error:  # Whatever it is, a client has met with it.
            self.lost.append(f"a client has ended: {type(error).__name__} {error}")

    async def paced(self, interval: float, first: float):
        """Keeps the rate: a call that was late is made up for."""
        due = time.monotonic() + first
        while not self.over.is_set():
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            due += interval
            yield

    async def call(self, connection: Connection, path: str, body: dict, headers: dict | None = None):
        begun = time.monotonic()
        try:
            async with asyncio.timeout(DEADLINE):
                status, _, content = await connection.exchange("POST", path, body, headers)
            answer = payload(content)
            text = answer.get("result", answer)["content"][0]["text"] if status == 200 else None
            if text != "m":
                raise Lost(f"answered with {status} {content[:200]}")
        except (Lost, TimeoutError, ValueError, KeyError, OSError) as error:
            self.lost.append(f"{type(error).__name__} {error}")
            connection.close()
            return
        self.calls += 1
        self.latencies.append((begun, time.monotonic() - begun))

    async def new(self, interval: float, first: float):
        async for _ in self.paced(interval, first):
            connection = Connection(self.address)
            await self.call(connection, "/mcp/tools/call", {"name": "web-echo", "arguments": {"message": "m"}})
            connection.close()

    async def kept(self, interval: float, first: float):
        connection = Connection(self.address)
        async for _ in self.paced(interval, first):
            await self.call(connection, "/mcp/tools/call", {"name": "web-echo", "arguments": {"message": "m"}})
        self.graceful += connection.graceful
        connection.close()

    async def in_session(self, interval: float, first: float):
        connection = Connection(self.address)
        session = await open_session(connection)
        async for _ in self.paced(interval, first):
            await self.call(connection, "/mcp", tool_call("web-echo", {"message": "m"}), session)
        self.graceful += connection.graceful
        connection.close()

    async def listener(self):
        """Holds the stream of a session, and opens it again where it ends as it should."""
        connection = Connection(self.address)
        session = await open_session(connection)
        ended = asyncio.create_task(self.over.wait())
        while not self.over.is_set():
            connection = Connection(self.address)
            await connection.send("GET", "/mcp", None, session | {"Accept": "text/event-stream"})
            status, headers = await connection.head()
            if status != 200 or not headers["content-type"].startswith("text/event-stream"):
                raise Lost(f"a stream is answered with {status}")
            self.listening += 1
            reading = asyncio.create_task(connection.body(headers))
            await asyncio.wait([reading, ended], return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
                self.streams_again += 1
            else:
                reading.cancel()
            self.listening -= 1
            connection.close()
        ended.cancel()

    async def end(self):
        self.over.set()
        await asyncio.gather(*self.tasks)


async def slow_over_rest(address: Address, server: str, seconds: float) -> str:
    body = {"name": f"{server}-slow", "arguments": {"seconds": seconds, "steps": 4}}
    status, _, content = await Connection(address).exchange("POST", "/mcp/tools/call", body)
    return content.decode() if status == 200 else f"LOST: {status} {content[:200]}"


async def slow_with_progress(address: Address, server: str, seconds: float) -> str:
    connection = Connection(address)
    session = await open_session(connection)
    message = tool_call(f"{server}-slow", {"seconds": seconds, "steps": 4}, {"progressToken": 1})
    status, _, content = await connection.exchange("POST", "/mcp", message, session)
    told = content.decode().count("notifications/progress")
    is_well = status == 200 and "result" in payload(content) and told >= 3
    return content.decode() if is_well else f"LOST: {status}, {told} times progress: {content[:300]}"


class Gateway:
    """One process, and whoever follows it."""

    def __init__(self, binary: str, config: Path, log: Path, listener: socket.socket | None = None):
        self.log = log
        command = [binary, "serve", "--config", str(config)]
        passed, stdin = {}, subprocess.DEVNULL
        if listener is not None:
            script = 'exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
            command, stdin = ["sh", "-c", script, "sh", *command], listener
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(command, stdin=stdin, stderr=stderr, env=os.environ | passed)
        self.pid = self.process.pid

    async def follow(self) -> int:
        """Sends SIGUSR2 and waits until another process serves; it is the one that is meant from here on."""
        before = self.log.read_text().count("serves from here on")
        os.kill(self.pid, signal.SIGUSR2)
        async with asyncio.timeout(DEADLINE):
            while (text := self.log.read_text()).count("serves from here on") == before:
                await asyncio.sleep(0.02)
        line = [line for line in text.splitlines() if "serves from here on" in line][-1]
        old, self.pid = self.pid, int(line.split("process ")[1].split()[0])
        return old

    async def gone(self, pid: int) -> float:
        begun = time.monotonic()
        async with asyncio.timeout(90):
            while is_alive(pid):
                await asyncio.sleep(0.02)
        return time.monotonic() - begun

    def end(self):
        for pid in {self.pid, self.process.pid}:
            with contextlib.suppress(ProcessLookupError):
                if is_alive(pid):
                    os.kill(pid, signal.SIGTERM)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start_upstream(binary: str) -> tuple[subprocess.Popen, str]:
    process = subprocess.Popen([binary, "demo", "--http", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "http://" in line:
            return process, "http://" + line.split("http://")[1].split()[0]
    raise SystemExit("the demo server does not start")


async def until_ready(address: Address):
    async with asyncio.timeout(DEADLINE):
        while True:
            with contextlib.suppress(Lost):
                status, _, _ = await Connection(address).exchange("GET", "/readyz")
                if status == 200:
                    return
            await asyncio.sleep(0.05)


class Part:
    """A gateway under load, and what came of it."""

    def __init__(self, arguments, work: Path, name: str, upstream: str):
        self.arguments, self.name = arguments, name
        self.directory = work / name.replace(" ", "-")
        self.directory.mkdir()
        self.log = self.directory / "log"
        self.config = self.directory / "config.json"
        self.settings = {
            "state_dir": "state",
            # The clients of one machine are one principal here.
            "limits": {"drain_ms": 45_000},
            "mcp_servers": {
                "web": {"url": upstream, "required": True, "max_in_flight": 256, "max_waiting": 1024},
                "child": {"command": "trunkline", "args": ["demo"], "required": True},
            },
        }
        self.wrong: list[str] = []

    def start(self, listen: str, listener: socket.socket | None = None) -> Gateway:
        self.config.write_text(json.dumps({"listen": listen, **self.settings}))
        return Gateway(self.arguments.binary, self.config, self.log, listener)

    async def run(self, address: Address, gateway: Gateway, seconds: float, change):
        """Load and slow calls before, while and after `change` happens."""
        await until_ready(address)
        load = Load(address, self.arguments.rate)
        begun = time.monotonic()
        load.begin()
        slow = [
            asyncio.create_task(what(address, server, seconds))
            for what in (slow_over_rest, slow_with_progress)
            for server in ("web", "child")
        ]
        await asyncio.sleep(1.5)
        if load.listening != LISTENERS:
            self.wrong.append(f"{load.listening} of {LISTENERS} streams are open")
        changed = time.monotonic()
        await change()
        took = time.monotonic() - changed
        async with asyncio.timeout(seconds + DEADLINE):
            answers = await asyncio.gather(*slow, return_exceptions=True)
        self.wrong += [f"slow call: {it}" for it in answers if not isinstance(it, str) or "LOST" in it]
        await asyncio.sleep(1.5)
        if load.listening != LISTENERS or load.streams_again < LISTENERS:
            self.wrong.append(f"{load.listening} streams, {load.streams_again} opened again, of {LISTENERS}")
        await load.end()
        elapsed = time.monotonic() - begun
        self.wrong += load.lost
        usual = sorted(it for at, it in load.latencies if at < changed)
        late = max((it for at, it in load.latencies if at >= changed - 1), default=0)
        median = usual[len(usual) // 2] if usual else 0
        print(
            f"{self.name}: {'FAILED' if self.wrong else 'ok'}; {load.calls} calls in {elapsed:.1f} s"
            f" ({load.calls / elapsed:.0f}/s), {len(load.lost)} lost, {len(slow)} slow calls of {seconds:g} s,"
            f" {load.graceful} kept connections closed behind an answer or between two,"
            f" {load.streams_again} streams opened again, change {took:.2f} s,"
            f" median {median * 1000:.1f} ms, longest around it {late * 1000:.0f} ms",
            flush=True,
        )
        gateway.end()


async def hand_over(part: Part, address: Address, listen: str, seconds: float, times: int):
    gateway = part.start(listen)
    old = []

    async def change():
        for _ in range(times):
            old.append(await gateway.follow())
        if not is_alive(old[0]):
            part.wrong.append("the first process has ended before its slow calls")

    await part.run(address, gateway, seconds, change)
    for pid in old:
        with contextlib.suppress(TimeoutError):
            await gateway.gone(pid)
        if is_alive(pid):
            part.wrong.append(f"process {pid} does not end")


async def restart(part: Part, seconds: float):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    host, port = listener.getsockname()
    gateway = part.start(f"{host}:{port}", listener)

    async def change():
        # As `systemctl restart` does it: the next one is started when this one has ended.
        os.kill(gateway.pid, signal.SIGTERM)
        await asyncio.to_thread(gateway.process.wait)
        if gateway.process.returncode != 0:
            part.wrong.append(f"it ends with {gateway.process.returncode}")
        again = part.start(f"{host}:{port}", listener)
        gateway.process, gateway.pid = again.process, again.pid

    await part.run(Address(host, port), gateway, seconds, change)
    listener.close()


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--slow", type=float, default=10, help="seconds of the slow calls")
    parser.add_argument("--rate", type=float, default=1000, help="calls a second")
    parser.add_argument("--only", choices=["tcp", "unix", "restart"])
    arguments = parser.parse_args()
    arguments.binary = str(Path(arguments.binary).resolve())
    upstream, url = start_upstream(arguments.binary)
    wrong = []
    try:
        with tempfile.TemporaryDirectory(prefix="trunkline-upgrade-") as work:
            def part(name: str) -> Part:
                return Part(arguments, Path(work), name, url)

            parts = []
            if arguments.only in (None, "tcp"):
                parts.append(part("hand-over over TCP"))
                port = free_port()
                await hand_over(parts[-1], Address("127.0.0.1", port), f"127.0.0.1:{port}", arguments.slow, 1)
            if arguments.only in (None, "unix"):
                parts.append(part("two hand-overs over a Unix socket"))
                path = str(Path(work) / "socket")
                seconds = min(arguments.slow, 5)
                await hand_over(parts[-1], Address(path=path), f"unix:{path}", seconds, 2)
            if arguments.only in (None, "restart"):
                parts.append(part("restart by the holder of the socket"))
                await restart(parts[-1], arguments.slow)
            for part in parts:
                wrong += [f"{part.name}: {it}" for it in part.wrong]
                if part.wrong:
                    print(part.log.read_text()[-3000:], file=sys.stderr)
    finally:
        upstream.terminate()
    for it in wrong[:20]:
        print(it)
    if len(wrong) > 20:
        print(f"... and {len(wrong) - 20} more")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
