"""A small HTTP client over raw sockets: what the soak's clients do badly, no library does."""

import json
import socket
import time
from typing import Any

TIMEOUT_SECONDS = 10
# How long a client waits in all, however often it hears a heartbeat.
LIFE_SECONDS = 20


class Broken(Exception):
    """The other side closed, or said what is no answer."""


class Connection:
    """One connection to the gateway; everything sent goes out as it is."""

    def __init__(self, port: int, receive_bytes: int = 0, timeout: float = TIMEOUT_SECONDS, life: float = LIFE_SECONDS) -> None:
        self.until = time.monotonic() + life
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(timeout)
        self.buffer = b""
        try:
            self.socket.connect(("127.0.0.1", port))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: Any) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Closes with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def more(self) -> None:
        if time.monotonic() > self.until:
            raise TimeoutError("its life is over")
        piece = self.socket.recv(65536)
        if not piece:
            raise Broken("closed")
        self.buffer += piece

    def line(self) -> bytes:
        while (end := self.buffer.find(b"\n")) < 0:
            self.more()
        line, self.buffer = self.buffer[:end], self.buffer[end + 1 :]
        return line.rstrip(b"\r")

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def head(self) -> tuple[int, dict[str, str]]:
        words = self.line().split()
        if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
            raise Broken(f"no status line: {words!r}")
        headers = {}
        while line := self.line():
            name, _, value = line.partition(b":")
            headers[name.decode().lower()] = value.strip().decode()
        return int(words[1]), headers

    def chunk(self) -> bytes:
        """The next chunk; empty at the end of the body."""
        size = int(self.line().split(b";")[0], 16)
        data = self.exactly(size)
        self.line()
        return data

    def body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            whole = b""
            while piece := self.chunk():
                whole += piece
            return whole
        return self.exactly(int(headers.get("content-length", "0")))

    def request(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        self.send(data)
        status, headers = self.head()
        return status, headers, self.body(headers)

    def events(self, headers: dict[str, str]) -> "Events":
        return Events(self, headers.get("transfer-encoding") == "chunked")


class Events:
    """The event stream of an answer whose head has been read."""

    def __init__(self, connection: Connection, chunked: bool) -> None:
        self.connection, self.chunked, self.text = connection, chunked, b""

    def line(self) -> bytes:
        if not self.chunked:
            return self.connection.line()
        while (end := self.text.find(b"\n")) < 0:
            piece = self.connection.chunk()
            if not piece:
                raise Broken("the stream ended")
            self.text += piece
        line, self.text = self.text[:end], self.text[end + 1 :]
        return line.rstrip(b"\r")

    def next(self) -> tuple[str, str]:
        """The next event that has data: its name and its data."""
        name, data = "message", []
        while True:
            line = self.line().decode()
            if line.startswith("event:"):
                name = line[6:].strip()
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif not line:
                if data and any(data):
                    return name, "\n".join(data)
                name, data = "message", []

    def answer(self, number: Any) -> dict[str, Any]:
        """The response to that request; what comes before it is passed over."""
        while True:
            message = json.loads(self.next()[1])
            if message.get("id") == number and "method" not in message:
                return message


def request(method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
    """The bytes of a request; underscores in header names become hyphens."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def post(path: str, message: Any, key: str, **headers: str) -> bytes:
    body = json.dumps(message).encode()
    accept = {"Accept": "application/json, text/event-stream"}
    return request("POST", path, body, Authorization=f"Bearer {key}", **(accept | headers))
