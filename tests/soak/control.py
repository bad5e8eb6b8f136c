#!/usr/bin/env python3
"""The client none of whose calls may fail: control.py PORT KEY CALLS_PER_SECOND

Until its input ends it calls the healthy servers at a steady rate, over REST on a connection that it keeps, over REST
on a new one each time, in one MCP session and without one. For each line of input it prints what it saw since the
line before, as JSON: `lanes`, each with its latencies in ms, and `failures`.
"""

import json
import math
import sys
import threading
import time
from typing import Any, Callable

from http_client import Broken, Connection, post
from loads import LEGACY, REST, hello, modern_bytes, rpc

port, key, rate = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
lock = threading.Lock()
lanes: dict[str, list[float]] = {}
failures: list[str] = []
ECHO = {"message": "control"}


class Kept:
    """Calls on a connection that is opened again only after the server said that it closes it."""

    def __init__(self, bytes_of: Callable[[int], bytes], good: bytes) -> None:
        self.bytes_of, self.good = bytes_of, good
        self.connection: Connection | None = None
        self.used = False

    def call(self, number: int) -> None:
        again = self.used
        try:
            self.once(number)
        except (Broken, BrokenPipeError, ConnectionResetError):
            # An idle connection may be closed at any time; only a new one may not.
            self.close()
            if not again:
                raise
            self.once(number)

    def once(self, number: int) -> None:
        if not self.connection:
            self.connection = Connection(port, life=math.inf)
        status, headers, body = self.connection.request(self.bytes_of(number))
        self.used = True
        if headers.get("connection", "").lower() == "close":
            self.close()
        if status != 200 or self.good not in body:
            raise Broken(f"{status} {body[:300]!r}")

    def close(self) -> None:
        if self.connection:
            self.connection.socket.close()
        self.connection, self.used = None, False


def rest(name: str) -> Callable[[int], bytes]:
    return lambda number: post(REST, {"name": name, "arguments": ECHO}, key)


def session() -> Callable[[int], bytes]:
    with Connection(port) as connection:
        _, headers, _ = connection.request(post("/mcp", hello(LEGACY[-1]), key))
        own = {"Mcp-Session-Id": headers["mcp-session-id"], "MCP-Protocol-Version": LEGACY[-1]}
        connection.request(post("/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"}, key, **own))
    return lambda number: post("/mcp", rpc(number, "tools/call", name="steady-echo", arguments=ECHO), key, **own)


def in_turn(makers: dict[str, Kept]) -> None:
    due, number = time.monotonic(), 0
    while True:
        for lane, kept in makers.items():
            number += 1
            due += 1 / rate
            # What was missed while the machine stood still is not made up for.
            due = max(due, time.monotonic() - 1)
            time.sleep(max(0, due - time.monotonic()))
            began = time.monotonic()
            failure = None
            try:
                kept.call(number)
                if lane.endswith("new"):
                    kept.close()
            except (Broken, OSError, ValueError, KeyError) as e:
                failure = f"{time.strftime('%H:%M:%S')} {lane}: {e!r}"
                kept.close()
            with lock:
                lanes.setdefault(lane, []).append((time.monotonic() - began) * 1000)
                if failure:
                    failures.append(failure)


makers = {
    "steady rest": Kept(rest("steady-echo"), b"hello from"),
    "steady new": Kept(rest("steady-echo"), b"hello from"),
    "steady session": Kept(session(), b"hello from"),
    "demo rest": Kept(rest("demo-echo"), b"control"),
    "demo modern": Kept(lambda n: modern_bytes(n, "tools/call", key, name="demo-echo", arguments=ECHO), b"control"),
}
threading.Thread(target=in_turn, args=[makers], daemon=True).start()
for _ in sys.stdin:
    with lock:
        said: dict[str, Any] = {"lanes": lanes, "failures": failures}
        lanes, failures = {}, []
    print(json.dumps(said), flush=True)
