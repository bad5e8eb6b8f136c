"""The servers of the memory benchmark: MCP servers whose answers are large, and nothing else."""

import json
import socket
import threading
from typing import Any, Callable

INITIALIZED = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}, "resources": {"subscribe": True}},
    "serverInfo": {"name": "large", "version": "1"},
}
# What stands for the id of a request in an answer that was written before.
ID = b'"the id"'


def response(**outcome: Any) -> bytes:
    """The text of a response, with `ID` where its request's id belongs."""
    return json.dumps({"jsonrpc": "2.0", "id": "the id"} | outcome).encode()


def zeros(count: int) -> bytes:
    """An array of so many bytes whose elements cost a parser most."""
    return b"[" + b"0," * ((count - 3) // 2) + b"0]"


class Upstream:
    """Streamable HTTP on a port of its own. `answers` gives the response to a method, as `response` writes it."""

    def __init__(self, answers: dict[str, Callable[[dict[str, Any]], bytes]]) -> None:
        self.answers = {"initialize": lambda _: response(result=INITIALIZED), "ping": lambda _: response(result={})}
        self.answers |= answers
        self.streams: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        threading.Thread(target=self.accept, daemon=True).start()

    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/mcp"

    def accept(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def notify(self, notice: dict[str, Any]) -> None:
        """Says it on every stream that the gateway has opened."""
        event = b"data: " + json.dumps({"jsonrpc": "2.0"} | notice).encode() + b"\n\n"
        for stream in self.streams:
            stream.sendall(event)

    def serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as file:
                while self.one(connection, file):
                    pass
        except OSError:
            pass  # the gateway's side has closed

    def one(self, connection: socket.socket, file: Any) -> bool:
        verb = file.readline(8192).split(b" ")[0]
        length = 0
        while line := file.readline(8192).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if verb == b"GET":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            self.streams.append(connection)
            file.read(1)
            return False
        if verb != b"POST":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return verb == b"DELETE"
        message = json.loads(file.read(length))
        if "id" not in message:
            connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            return True
        status, body = "200 OK", b""
        if answer := self.answers.get(message["method"]):
            body = answer(message.get("params", {}))
        else:
            status, body = "400 Bad Request", response(error={"code": -32601, "message": "Method not found"})
        body = body.replace(ID, json.dumps(message["id"]).encode(), 1)
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nMcp-Session-Id: large\r\n"
        connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body))
        connection.sendall(body)
        return True
