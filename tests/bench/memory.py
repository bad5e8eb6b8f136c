#!/usr/bin/env python3
"""What bursts of large answers cost in memory, and how much of it stays:

    memory.py GATEWAY_BINARY [BURST...]

Each burst has a gateway of its own. Printed are the bytes that were asked for, the gateway's resident set before the
burst, its highest, that of REST_SECONDS after the last connection's end, its processor time until then, and what the
clients were answered. Fails where a gateway has ended or more than REST_MIB_MAX stays. Needs Linux and Python 3.10 or newer.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from typing import Any, Callable, Iterator

from memory_upstream import INITIALIZED, Upstream, response, zeros

REST_SECONDS = 10
REST_MIB_MAX = 24
READY_SECONDS = 30
# How long a client that does not read stays.
UNREAD_SECONDS = 4
# How long an answer is waited for.
ANSWER_SECONDS = 60
KIB, MIB = 1024, 1024 * 1024
REVISION = "2025-06-18"
WITH_BATCHES = "2025-03-26"


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: application/json, text/event-stream"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def rpc(number: int, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def tools(count: int, size: int) -> Callable[[Any], bytes]:
    one = {"description": "x" * (size - 80), "inputSchema": {"type": "object"}}
    text = response(result={"tools": [{"name": f"tool{n}"} | one for n in range(count)]})
    return lambda _: text


ONE_TOOL = tools(1, 200)


class Gateway:
    """The gateway of one burst, and what its clients have asked for and were answered."""

    def __init__(self, binary: pathlib.Path, folder: pathlib.Path, upstream: Upstream) -> None:
        config = {"mcp_servers": {"large": {"url": upstream.url(), "transport": "http"}}}
        (folder / "config.json").write_text(json.dumps(config))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [binary, "serve", "--config", folder / "config.json", "--listen", f"127.0.0.1:{self.port}"]
        with open(folder / "gateway.log", "w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.asked_bytes = 0
        self.answered: Counter[str] = Counter()
        self.open: list[socket.socket] = []
        self.wait_until_contact()
        self.before = self.resident("VmRSS")

    def wait_until_contact(self) -> None:
        """Until the server has answered, or was refused."""
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            try:
                state = json.loads(self.read(self.send(request("GET", "/status"))))["upstreams"][0]["state"]
                if state not in ("starting", "connecting"):
                    break
            except (OSError, ValueError, LookupError):
                pass
            time.sleep(0.1)
        time.sleep(0.5)
        self.answered.clear()

    def send(self, data: bytes, receive_bytes: int = 0) -> socket.socket:
        connection = socket.socket()
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.open.append(connection)
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(data)
        return connection

    def head(self, file: Any) -> dict[str, str]:
        self.answered[(file.readline().split() or [b"", b"cut off"])[1].decode()] += 1
        lines = iter(lambda: file.readline().strip().decode(), "")
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def read(self, connection: socket.socket) -> bytes:
        """The body of an answer; what is chunked is read for its size alone."""
        with connection.makefile("rb") as file:
            headers = self.head(file)
            if "content-length" in headers:
                return file.read(int(headers["content-length"]))
            if headers.get("transfer-encoding") != "chunked":
                return b""
            body = b""
            while size := int(file.readline() or b"0", 16):
                body = file.read(size)
                file.readline()
            return body

    def ask(self, data: bytes) -> int:
        return len(self.read(self.send(data)))

    def session(self, revision: str = REVISION) -> dict[str, str]:
        """The headers of a new session's requests."""
        hello = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        opened = self.send(self.message(rpc(0, "initialize", **hello)))
        with opened.makefile("rb") as file:
            headers = self.head(file)
        own = {"Mcp_Session_Id": headers["mcp-session-id"], "MCP_Protocol_Version": revision}
        self.ask(self.message({"jsonrpc": "2.0", "method": "notifications/initialized"}, **own))
        self.answered.clear()
        return own

    def message(self, message: Any, **headers: str) -> bytes:
        return request("POST", "/mcp", json.dumps(message).encode(), **headers)

    def close(self) -> None:
        for connection in self.open:
            connection.close()
        self.open.clear()

    def resident(self, field: str) -> float:
        """In MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in status.splitlines())
        return int(lines[field].split()[0]) / KIB

    def cpu_seconds(self) -> float:
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


Burst = Iterator[Any]


def lists(count: int, size: int, clients: int) -> Burst:
    """Clients of one session ask for the same list at once, and read it when all have asked."""
    gateway: Gateway = yield Upstream({"tools/list": tools(count, size)})
    own = gateway.session()
    gateway.asked_bytes = clients * count * size
    asking = [gateway.send(gateway.message(rpc(n, "tools/list"), **own), 4 * KIB) for n in range(clients)]
    time.sleep(UNREAD_SECONDS)
    for connection in asking:
        gateway.read(connection)


def batch(messages: int) -> Burst:
    """One batch of lists, read when its answer waits."""
    gateway: Gateway = yield Upstream({"tools/list": tools(1000, 6 * KIB)})
    own = gateway.session(WITH_BATCHES)
    gateway.asked_bytes = messages * 1000 * 6 * KIB
    batched = [rpc(n, "tools/list") for n in range(messages)]
    connection = gateway.send(gateway.message(batched, **own), 4 * KIB)
    time.sleep(UNREAD_SECONDS)
    gateway.read(connection)


def rest_lists(clients: int) -> Burst:
    """Readers of the REST list that never read."""
    gateway: Gateway = yield Upstream({"tools/list": tools(1000, 6 * KIB)})
    gateway.asked_bytes = clients * 1000 * 6 * KIB
    for _ in range(clients):
        gateway.send(request("GET", "/mcp/tools/list"), 4 * KIB)
    time.sleep(UNREAD_SECONDS)


def error_data(size: int) -> Burst:
    """A call that ends in an error with data."""
    error = response(error={"code": -32000, "message": "no", "data": 0}).replace(b'"data": 0', b'"data": ' + zeros(size))
    gateway: Gateway = yield Upstream({"tools/list": ONE_TOOL, "tools/call": lambda _: error})
    gateway.asked_bytes = size
    gateway.ask(gateway.message(rpc(1, "tools/call", name="tool0", arguments={}), **gateway.session()))


def server_info(size: int) -> Burst:
    """A server that says much of itself, and two looks at /status."""
    told = INITIALIZED | {"serverInfo": {"name": "large", "version": "1", "junk": 0}}
    hello = response(result=told).replace(b'"junk": 0', b'"junk": ' + zeros(size))
    gateway: Gateway = yield Upstream({"initialize": lambda _: hello, "tools/list": ONE_TOOL})
    gateway.asked_bytes = size + sum(gateway.ask(request("GET", "/status")) for _ in range(2))


def notices(clients: int, size: int, count: int) -> Burst:
    """What a server says of a resource that the sessions of all clients are subscribed to, on streams that read."""
    uri = "file:///watched"
    upstream = Upstream(
        {
            "tools/list": ONE_TOOL,
            "resources/list": lambda _: response(result={"resources": [{"uri": uri, "name": "watched"}]}),
            "resources/subscribe": lambda _: response(result={}),
        }
    )
    gateway: Gateway = yield upstream
    told = 0
    for _ in range(clients):
        own = gateway.session()
        gateway.ask(gateway.message(rpc(1, "resources/subscribe", uri=uri), **own))
        stream = gateway.send(request("GET", "/mcp", **own))
        threading.Thread(target=swallow, args=[stream], daemon=True).start()
    until = time.monotonic() + 5
    while not upstream.streams and time.monotonic() < until:
        time.sleep(0.1)
    for number in range(count):
        params = {"uri": uri, "_meta": {"n": number, "padding": "x" * size}}
        upstream.notify({"method": "notifications/resources/updated", "params": params})
        told += size * clients
        time.sleep(0.2)
    gateway.asked_bytes = told
    time.sleep(1)


def swallow(stream: socket.socket) -> None:
    try:
        while stream.recv(256 * KIB):
            pass
    except OSError:
        pass


def nonsense(size: int) -> Burst:
    """A call that is answered with an array of zeros."""
    body = zeros(size)
    gateway: Gateway = yield Upstream({"tools/list": ONE_TOOL, "tools/call": lambda _: body})
    gateway.asked_bytes = size
    gateway.ask(request("POST", "/mcp/tools/call", b'{"name":"tool0","arguments":{}}'))


def templates(count: int, size: int) -> Burst:
    """One URI that is looked for among many long templates."""
    parts = size // 8
    listed = [{"name": f"t{n}", "uriTemplate": "a:" + "{x}aaaa" * parts + str(n)} for n in range(count)]
    upstream = Upstream(
        {
            "tools/list": ONE_TOOL,
            "resources/list": lambda _: response(result={"resources": []}),
            "resources/templates/list": lambda _: response(result={"resourceTemplates": listed}),
        }
    )
    gateway: Gateway = yield upstream
    gateway.asked_bytes = count * size
    gateway.ask(gateway.message(rpc(1, "resources/read", uri="a:" + "a" * (size - 8) + "b"), **gateway.session()))


def unread(clients: int, size: int) -> Burst:
    """Calls whose large answers are not read."""
    result = response(result={"content": [{"type": "text", "text": "x" * size}]})
    gateway: Gateway = yield Upstream({"tools/list": ONE_TOOL, "tools/call": lambda _: result})
    gateway.asked_bytes = clients * size
    for _ in range(clients):
        gateway.send(request("POST", "/mcp/tools/call", b'{"name":"tool0","arguments":{}}'), 4 * KIB)
    time.sleep(UNREAD_SECONDS)


def kept(clients: int, size: int) -> Burst:
    """Calls one after the other on connections that stay, with answers of all sizes."""
    results = [response(result={"content": [{"type": "text", "text": "x" * (size * n // 8)}]}) for n in range(1, 9)]
    upstream = Upstream({"tools/list": ONE_TOOL, "tools/call": lambda params: results[params["arguments"]["n"]]})
    gateway: Gateway = yield upstream
    gateway.asked_bytes = sum(map(len, results)) * clients
    connections = [gateway.send(b"") for _ in range(clients)]
    for n in range(8):
        for number, connection in enumerate(connections):
            body = json.dumps({"name": "tool0", "arguments": {"n": (n + number) % 8}}).encode()
            connection.sendall(request("POST", "/mcp/tools/call", body))
        for connection in connections:
            gateway.read(connection)


BURSTS: dict[str, tuple[str, Callable[[], Burst]]] = {
    "lists": ("200 connections, 100 tools of 1 kB", lambda: lists(100, KIB, 200)),
    "long-lists": ("200 connections, 1,000 tools of 6 kB", lambda: lists(1000, 6 * KIB, 200)),
    "batch": ("a batch of 64 lists of 6 MB", lambda: batch(64)),
    "rest-lists": ("200 REST lists of 6 MB, unread", lambda: rest_lists(200)),
    "error-data": ("error.data of 32 MiB", lambda: error_data(32 * MIB)),
    "server-info": ("serverInfo of 16 MiB, /status twice", lambda: server_info(16 * MIB)),
    "notices": ("5 notices of 200 kB to 60 streams", lambda: notices(60, 200 * KIB, 5)),
    "nonsense": ("an answer [0,0,...] of 32 MiB", lambda: nonsense(32 * MIB)),
    "templates": ("200 templates of 8 kB, one URI", lambda: templates(200, 8000)),
    "unread": ("50 answers of 8 MB, unread", lambda: unread(50, 8 * MIB)),
    "kept": ("50 connections, 8 answers up to 4 MB", lambda: kept(50, 4 * MIB)),
}


def run(binary: pathlib.Path, folder: pathlib.Path, name: str) -> tuple[Gateway, threading.Thread, list[str]]:
    """Makes a burst, and leaves its gateway to a thread that looks at it when its rest is over."""
    burst = BURSTS[name][1]()
    folder.mkdir()
    gateway = Gateway(binary, folder, next(burst))
    try:
        burst.send(gateway)
    except StopIteration:
        pass
    except (OSError, ValueError, LookupError) as error:
        gateway.answered[f"{type(error).__name__}: {error}"] += 1
    gateway.close()
    row: list[str] = []

    def look() -> None:
        time.sleep(REST_SECONDS)
        if gateway.process.poll() is not None:
            return
        asked, before = gateway.asked_bytes / MIB, gateway.before
        peak, rest = gateway.resident("VmHWM"), gateway.resident("VmRSS")
        answers = ", ".join(f"{count} x {what}" for what, count in gateway.answered.items()) or "not read"
        row.append(f"{asked:9.1f} {before:10.1f} {peak:9.1f} {rest:9.1f} {gateway.cpu_seconds():7.2f}  {answers}")
        if rest > REST_MIB_MAX:
            row.append(f"more than {REST_MIB_MAX} MiB stay")

    thread = threading.Thread(target=look)
    thread.start()
    return gateway, thread, row


def main() -> int:
    binary, names = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:] or list(BURSTS)
    failed = False
    print(f"{'burst':38} {'asked/MiB':>9} {'before/MiB':>10} {'peak/MiB':>9} {'rest/MiB':>9} {'CPU/s':>7}  answers")
    with tempfile.TemporaryDirectory(prefix="trunkline-memory-") as folder:
        runs = []
        try:
            for name in names:
                runs.append((name, *run(binary, pathlib.Path(folder) / name, name)))
            for name, _, thread, row in runs:
                thread.join()
                failed |= len(row) != 1
                print(f"{BURSTS[name][0]:38}", " !!! ".join(row) or "the gateway has ended", flush=True)
        finally:
            for _, gateway, thread, _ in runs:
                thread.join()
                gateway.process.kill()
                gateway.process.wait()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
