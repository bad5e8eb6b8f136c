"""What the soak's clients do: each function is one visit of one client, well or badly behaved.

A visit gets a `Visit` and may fail in any way; only the control client (control.py) may not.
"""

import json
import random
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Callable

from http_client import Broken, Connection, post, request

MODERN = "2026-07-28"
LEGACY = ["2025-03-26", "2025-06-18", "2025-11-25"]
REST = "/mcp/tools/call"
SERVERS = ["demo", "http", "fast", "flapping", "hung", "dead", "hostile", "noisy", "changing", "extra", "more"]
WEIGHTS = [20, 20, 20, 8, 3, 4, 10, 5, 5, 3, 2]
KEYS = ["one", "two", "spare"]


@dataclass
class Visit:
    port: int
    counts: Counter[str] = field(default_factory=Counter)

    def open(self, **settings: Any) -> Connection:
        return Connection(self.port, **settings)

    def saw(self, what: object) -> None:
        self.counts[str(what)] += 1


def a_call() -> tuple[str, dict[str, Any]]:
    """A tool's offered name and its arguments."""
    server = random.choices(SERVERS, WEIGHTS)[0]
    if server in ("hostile", "noisy", "changing"):
        return f"{server}-{random.choice(['well', 'well', 'fault', 'flood', 'slow', 'none'])}", {}
    if server in ("fast", "hung", "dead"):
        return f"{server}-echo", {"message": "x"}
    kind = random.randrange(10)
    if kind < 5:
        return f"{server}-echo", {"message": "m" * random.choice([1, 10, 1000, 30000])}
    if kind < 7:
        return f"{server}-add", {"a": 1, "b": random.choice([2, "not a number"])}
    if kind < 8:
        return f"{server}-fail", {"message": "no"}
    return f"{server}-slow", {"seconds": random.choice([0.05, 0.3, 1]), "steps": 5}


def rpc(number: Any, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def tools_call(number: Any) -> dict[str, Any]:
    name, arguments = a_call()
    return rpc(number, "tools/call", name=name, arguments=arguments, _meta={"progressToken": number})


def hello(revision: str, **capabilities: Any) -> dict[str, Any]:
    client = {"name": "soak", "version": "1"}
    return rpc(0, "initialize", protocolVersion=revision, capabilities=capabilities, clientInfo=client)


def key() -> str:
    return random.choices(KEYS, [5, 5, 1])[0]


def rest(visit: Visit) -> None:
    with visit.open() as connection:
        who = key()
        for _ in range(random.randrange(1, 12)):
            name, arguments = a_call()
            body = {"name": name, "arguments": arguments}
            if random.random() < 0.1:
                body["timeout_ms"] = random.choice([1, 50, 500])
            visit.saw(connection.request(post(REST, body, who))[0])
        visit.saw(connection.request(request("GET", "/mcp/tools/list", Authorization=f"Bearer {who}"))[0])


def hangs_up(visit: Visit) -> None:
    """Leaves during its call."""
    with visit.open() as connection:
        slow = {"name": f"{random.choice(['demo', 'http', 'hung', 'hostile'])}-slow", "arguments": {"seconds": 3}}
        if slow["name"] == "hung-slow":
            slow = {"name": "hung-echo", "arguments": {}}
        connection.send(post(REST, slow, key()))
        time.sleep(random.uniform(0, 0.6))
        if random.random() < 0.5:
            connection.reset()
        visit.saw("hung up")


class Session:
    """A session over Streamable HTTP."""

    def __init__(self, visit: Visit, connection: Connection, path: str = "", **capabilities: Any) -> None:
        self.visit, self.connection, self.who = visit, connection, key()
        revision = random.choice(LEGACY)
        path = path or random.choice(["/mcp", "/mcp", "/mcp/", "/mcp/demo", "/http/mcp"])
        status, headers, body = connection.request(post(path, hello(revision, **capabilities), self.who))
        visit.saw(status)
        if status != 200:
            raise Broken(body[:100])
        self.path = path
        self.headers = {"Mcp-Session-Id": headers["mcp-session-id"], "MCP-Protocol-Version": revision}
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def bytes(self, message: Any) -> bytes:
        return post(self.path, message, self.who, **self.headers)

    def post(self, message: Any) -> None:
        self.visit.saw(self.connection.request(self.bytes(message))[0])

    def other(self, method: str, **headers: str) -> bytes:
        head = {"Authorization": f"Bearer {self.who}", "Accept": "text/event-stream"}
        return request(method, self.path, **(head | self.headers | headers))


def session(visit: Visit) -> None:
    capabilities = {"roots": {"listChanged": True}} if random.random() < 0.06 else {}
    with visit.open() as connection, visit.open() as stream:
        it = Session(visit, connection, **capabilities)
        listens = random.random() < 0.4
        if listens:
            stream.send(it.other("GET"))
            visit.saw(stream.head()[0])
        for number in range(1, random.randrange(2, 10)):
            it.post(tools_call(number))
            if random.random() < 0.2:
                it.post(rpc(f"l{number}", random.choice(["tools/list", "resources/list", "prompts/list", "ping"])))
            if random.random() < 0.1:
                it.post(rpc(f"s{number}", "resources/subscribe", uri="demo://readme"))
        end = random.random()
        if end < 0.5:
            visit.saw(connection.request(it.other("DELETE"))[0])
        elif end < 0.7 and listens:
            stream.reset()


def resumes(visit: Visit) -> None:
    """Breaks off a call's stream and takes it up again."""
    with visit.open() as connection, visit.open() as second, visit.open() as third:
        it = Session(visit, connection, "/mcp")
        slow = rpc(7, "tools/call", name="demo-slow", arguments={"seconds": 1, "steps": 20}, _meta={"progressToken": 7})
        second.send(it.bytes(slow))
        status, _ = second.head()
        visit.saw(status)
        piece = second.socket.recv(4096).decode(errors="replace")
        second.reset()
        ids = [line[3:].strip() for line in piece.splitlines() if line.startswith("id:")]
        third.send(it.other("GET", **{"Last-Event-ID": ids[-1] if ids else "1-1"}))
        status, headers = third.head()
        visit.saw(status)
        if status == 200:
            third.socket.settimeout(3)
            third.events(headers).answer(7)
            visit.saw("resumed")


def cancels(visit: Visit) -> None:
    with visit.open() as connection, visit.open() as second:
        it = Session(visit, connection, "/mcp")
        server = random.choice(["demo", "http", "hostile", "noisy"])
        arguments = {"seconds": 30, "steps": 100} if server in ("demo", "http") else {}
        call = rpc("long", "tools/call", name=f"{server}-slow", arguments=arguments, _meta={"progressToken": 1})
        second.send(it.bytes(call))
        time.sleep(random.uniform(0.05, 0.5))
        params = {"requestId": "long", "reason": "enough"}
        it.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
        visit.saw("cancelled")
        if random.random() < 0.5:
            visit.saw(connection.request(it.other("DELETE"))[0])


def http_sse(visit: Visit) -> None:
    with visit.open() as stream:
        who = key()
        path = random.choice(["/mcp/sse", "/sse", "/mcp", "/mcp/demo/sse"])
        stream.send(request("GET", path, Authorization=f"Bearer {who}", Accept="text/event-stream"))
        status, headers = stream.head()
        visit.saw(status)
        if status != 200:
            return
        events = stream.events(headers)
        endpoint = events.next()[1]

        def say(message: Any) -> bool:
            # The gateway closes a message's connection: what the message asks for goes on on its thread.
            with visit.open() as connection:
                status = connection.request(post(endpoint, message, who))[0]
            visit.saw(status)
            return status == 202

        say(hello("2024-11-05"))
        events.answer(0)
        say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        for number in range(1, random.randrange(2, 6)):
            call = tools_call(number)
            if say(call) and random.random() < 0.8:
                try:
                    events.answer(number)
                except TimeoutError:
                    visit.saw(f"no answer over HTTP+SSE to {call['params']['name']}")
                    return
        if random.random() < 0.5:
            stream.reset()


def modern_bytes(number: Any, method: str, who: str, asked: bool = False, **params: Any) -> bytes:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "soak", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}} if asked else {},
    }
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
    if "name" in params:
        headers["Mcp-Name"] = params["name"]
    params["_meta"] = meta | ({"progressToken": number} if random.random() < 0.5 else {})
    return post("/mcp", rpc(number, method, **params), who, **headers)


def modern(visit: Visit) -> None:
    with visit.open() as connection:
        who = key()
        for number in range(random.randrange(1, 10)):
            name, arguments = a_call()
            asked = random.random() < 0.05
            call = modern_bytes(number, "tools/call", who, asked, name=name, arguments=arguments)
            visit.saw(connection.request(call)[0])
        visit.saw(connection.request(modern_bytes("l", "tools/list", who))[0])
        if random.random() < 0.2:  # a cancellation, in this revision
            slow = {"seconds": 20, "steps": 50}
            connection.send(modern_bytes("c", "tools/call", who, name="demo-slow", arguments=slow))
            time.sleep(random.uniform(0, 0.5))


def listens(visit: Visit) -> None:
    with visit.open(timeout=random.uniform(1, 8)) as connection:
        wanted = {"toolsListChanged": True, "resourceSubscriptions": ["demo://readme"]}
        connection.send(modern_bytes("listen", "subscriptions/listen", key(), notifications=wanted))
        status, headers = connection.head()
        visit.saw(status)
        if status == 200:
            events = connection.events(headers)
            while True:
                events.next()
                visit.saw("heard")


def reads_slowly(visit: Visit) -> None:
    """Asks for much and reads next to nothing of it."""
    big = {"name": "demo-echo", "arguments": {"message": "b" * random.randrange(100_000, 400_000)}}
    with visit.open(receive_bytes=4096) as connection:
        for _ in range(4):
            connection.send(post(REST, big, key()))
        for _ in range(random.randrange(20)):
            connection.socket.recv(512)
            time.sleep(0.2)
        visit.saw("read slowly")


def never_reads_stream(visit: Visit) -> None:
    """Opens a session's stream and does not read it; the noise of the hostile servers goes there."""
    with visit.open() as connection, visit.open(receive_bytes=4096) as stream:
        it = Session(visit, connection)
        stream.send(it.other("GET"))
        for number in range(8):
            it.post(tools_call(number))
            time.sleep(0.5)


GARBAGE: list[Callable[[], bytes]] = [
    lambda: random.randbytes(random.randrange(1, 3000)),
    lambda: b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    lambda: b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    lambda: b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 300 + b"\r\n",
    lambda: b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    lambda: b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    lambda: post("/mcp", tools_call(1), "one")[:-5],
    lambda: post("/mcp", tools_call(1), "one") * 20,
    lambda: post("/mcp", [rpc(n, "ping") for n in range(200)], "one"),
    lambda: post("/mcp", rpc(1, "x" * 1000, **{str(n): n for n in range(1000)}), "one"),
    lambda: request("POST", "/mcp", b"[" * 50_000, Authorization="Bearer one"),
    lambda: request("POST", "/mcp", b'{"jsonrpc":"2.0","id":1e999,"method":"\xff"}', Authorization="Bearer one"),
    lambda: post("/mcp", tools_call(1), "one", **{"Mcp-Session-Id": "no-such-session"}),
    lambda: request("GET", "/mcp", Authorization="Bearer one", **{"Mcp-Session-Id": "\x01"}),
    lambda: request("GET", "/no/such/path", Authorization="Bearer one"),
    lambda: request("DELETE", "/mcp/tools/call", Authorization="Bearer one"),
    lambda: request("GET", "/mcp", Origin="http://evil.example", Authorization="Bearer one"),
    lambda: b"GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n",
]


def garbage(visit: Visit) -> None:
    for _ in range(4):
        with visit.open(timeout=3) as connection:
            connection.send(random.choice(GARBAGE)())
            if random.random() < 0.6:
                connection.reset()
            else:
                visit.saw(connection.head()[0])


def drips(visit: Visit) -> None:
    """A request of one byte at a time, which the gateway gives up first."""
    with visit.open() as connection:
        for byte in post(REST, {"name": "fast-echo"}, "one"):
            connection.send(bytes([byte]))
            time.sleep(0.1)


def oversize(visit: Visit) -> None:
    body = b'{"name":"fast-echo","arguments":{"message":"' + b"o" * 1_500_000 + b'"}}'
    with visit.open() as connection:
        visit.saw(connection.request(request("POST", REST, body, Authorization="Bearer one"))[0])


def wrong_key(visit: Visit) -> None:
    with visit.open() as connection:
        for _ in range(5):
            call = {"name": "fast-echo", "arguments": {}}
            visit.saw(connection.request(post(REST, call, random.choice(["", "wrong", "on", "one "])))[0])


def spent(visit: Visit) -> None:
    """Uses a key of few calls a minute."""
    with visit.open() as connection:
        for _ in range(10):
            visit.saw(connection.request(post(REST, {"name": "fast-echo", "arguments": {}}, "meagre"))[0])


def many_connects(visit: Visit) -> None:
    connections = [visit.open() for _ in range(25)]
    for connection in connections:
        connection.reset() if random.random() < 0.5 else connection.socket.close()


def hoards(visit: Visit) -> None:
    """Opens sessions until it is refused, and leaves them all."""
    with visit.open() as connection:
        for _ in range(60):
            Session(visit, connection)


VISITS: dict[Callable[[Visit], None], float] = {
    rest: 30, session: 16, modern: 16, http_sse: 8, listens: 5, cancels: 6, hangs_up: 6, resumes: 3,
    reads_slowly: 1.5, never_reads_stream: 1.5, garbage: 8, drips: 0.5, oversize: 1, wrong_key: 2,
    spent: 2, many_connects: 1, hoards: 0.3,
}  # fmt: skip


def visit_once(visit: Visit) -> None:
    kind = random.choices(list(VISITS), list(VISITS.values()))[0]
    visit.counts[f"visit {kind.__name__}"] += 1
    try:
        kind(visit)
    except (Broken, TimeoutError, OSError, ValueError, KeyError) as e:
        visit.counts[f"{kind.__name__}: {type(e).__name__}"] += 1
        if isinstance(e, (ValueError, KeyError)):
            visit.counts[f"{kind.__name__}: {e!r}"[:120]] += 1
