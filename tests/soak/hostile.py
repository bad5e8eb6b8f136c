#!/usr/bin/env python3
"""A hostile upstream: hostile.py HTTP listens and prints its port, hostile.py STDIO is a child.

It is an MCP server that lists a few tools, and does something else at one request in so many.
Over HTTP, `/changing/mcp` behaves, but describes its tool otherwise every few seconds.
"""

import json
import os
import random
import socket
import sys
import threading
import time

TOOLS = ["well", "fault", "flood", "slow"]
CHANGES_SECONDS = 7
NOTICES = 400


def tools(changing: bool) -> list[dict]:
    text = f"Version {int(time.time() / CHANGES_SECONDS) % 2}." if changing else "A tool."
    return [{"name": name, "description": text, "inputSchema": {"type": "object"}} for name in TOOLS]


def outcome(method: str, changing: bool) -> dict:
    if method == "initialize":
        server = {"name": "hostile", "version": "1"}
        capabilities = {"tools": {"listChanged": True}, "resources": {}, "logging": {}}
        return {"result": {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": server}}
    if method == "tools/list":
        return {"result": {"tools": tools(changing)}}
    if method == "tools/call":
        return {"result": {"content": [{"type": "text", "text": "well"}]}}
    if method == "resources/list":
        return {"result": {"resources": []}}
    if method in ("ping", "logging/setLevel"):
        return {"result": {}}
    return {"error": {"code": -32601, "message": "Method not found"}}


def notice(number: int) -> dict:
    kind = random.choice(["progress", "message", "tools/list_changed", "resources/updated", "nonsense"])
    params = {"progressToken": number, "progress": number, "level": "error", "data": "x" * 200, "uri": "demo://x"}
    return {"jsonrpc": "2.0", "method": f"notifications/{kind}", "params": params}


def question(number: int) -> dict:
    method = random.choice(["roots/list", "sampling/createMessage", "elicitation/create", "ping", "no/such"])
    return {"jsonrpc": "2.0", "id": f"q{number}", "method": method, "params": {}}


class Over:
    """One connection of the HTTP form."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.file = connection.makefile("rb")

    def serve(self) -> None:
        try:
            while self.one():
                pass
        except (OSError, ValueError):
            pass
        finally:
            self.file.close()
            self.connection.close()

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def say(self, text: str | bytes) -> None:
        self.connection.sendall(text.encode() if isinstance(text, str) else text)

    def answer(self, status: str, body: str, kind: str = "application/json") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nMcp-Session-Id: hostile\r\n"
        self.say(f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}")

    def one(self) -> bool:
        line = self.file.readline(8192).decode()
        if not line:
            return False
        verb, path, _ = line.split(" ", 2)
        length = 0
        while (header := self.file.readline(8192).strip()) != b"":
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = self.file.read(length)
        changing = path.startswith("/changing")
        if verb == "GET" and not changing:
            return self.stream()
        if verb == "GET":
            self.answer("405 Method Not Allowed", "")
            return True
        if verb == "DELETE":
            self.answer("200 OK", "")
            return True
        message = json.loads(body)
        method = message.get("method", "")
        if "id" not in message or not method:
            self.answer("202 Accepted", "")
            return True
        tool = message.get("params", {}).get("name") if method == "tools/call" else None
        answer = json.dumps({"jsonrpc": "2.0", "id": message["id"]} | outcome(method, changing))
        if tool == "slow":
            time.sleep(random.uniform(0, 4))
        if tool == "flood":
            return self.flood(answer)
        if not changing and (tool == "fault" or random.random() < 0.04):
            return self.fault(answer, message["id"])
        status = "400 Bad Request" if '"error"' in answer else "200 OK"
        self.answer(status, answer)
        return True

    def open_stream(self) -> None:
        self.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")

    def stream(self) -> bool:
        """The stream of a GET: notices and questions for a while, then some end."""
        if random.random() < 0.3:
            self.answer(random.choice(["405 Method Not Allowed", "404 Not Found", "500 Oops"]), "no")
            return True
        self.open_stream()
        until = time.monotonic() + random.uniform(1, 15)
        number = 0
        while time.monotonic() < until:
            for _ in range(random.randrange(30)):
                number += 1
                said = question(number) if random.random() < 0.1 else notice(number)
                self.say(f"data: {json.dumps(said)}\n\n")
            time.sleep(random.uniform(0.1, 1))
        if random.random() < 0.5:
            self.reset()
        return False

    def flood(self, answer: str) -> bool:
        self.open_stream()
        for number in range(NOTICES):
            self.say(f"id: {number}\ndata: {json.dumps(notice(number))}\n\n")
            if number % 50 == 0:
                self.say(f"data: {json.dumps(question(number))}\n\n")
        if random.random() < 0.7:
            self.say(f"data: {answer}\n\n")
        return False

    def fault(self, answer: str, number: int | str) -> bool:
        half = answer[: len(answer) // 2]
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        kind = random.randrange(16)
        if kind == 0:
            self.reset()
        elif kind == 1:
            pass
        elif kind == 2:
            self.say(os.urandom(300))
        elif kind == 3:
            self.say(f"{head}Content-Length: {len(answer)}\r\n\r\n{half}")
            self.reset()
        elif kind == 4:
            self.say(f"{head}Content-Length: {len(answer)}\r\n\r\n{half}")
            time.sleep(5)
        elif kind == 5:
            self.say(f"{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n{half}")
        elif kind == 6:
            self.answer("200 OK", "<html>It works!</html>", "text/html")
        elif kind == 7:
            self.answer(random.choice(["401 No", "403 No", "404 No", "410 No", "429 No", "500 No", "503 No"]), "no")
        elif kind == 8:
            self.say("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
        elif kind == 9:
            self.answer("200 OK", json.dumps({"jsonrpc": "2.0", "id": "another", "result": {}}))
        elif kind == 10:
            self.answer("200 OK", answer.replace("2.0", "9.9").replace(":", "", 1))
        elif kind == 11:
            for byte in f"{head}Content-Length: {len(answer)}\r\n\r\n{answer}"[:40].encode():
                self.say(bytes([byte]))
                time.sleep(0.1)
        elif kind == 12:
            self.open_stream()
            self.say("data: {\n\n: noise\ndata: []\n\nevent: x\ndata: 1\n\n")
        elif kind == 13:
            self.say(f"{head}Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(300):
                self.say("1000\r\n" + "x" * 4096 + "\r\n")
        elif kind == 14:
            self.open_stream()
            self.say("data: " + "y" * 2_000_000)
        else:
            self.say("HTTP/1.1 200 OK\r\n" + "X-A: b\r\n" * 5000)
        return False


def over_http() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        connection.settimeout(30)
        threading.Thread(target=Over(connection).serve, daemon=True).start()


def over_stdio() -> None:
    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    for line in sys.stdin:
        message = json.loads(line)
        method = message.get("method", "")
        if "id" not in message or not method:
            continue
        answer = json.dumps({"jsonrpc": "2.0", "id": message["id"]} | outcome(method, False))
        tool = message.get("params", {}).get("name") if method == "tools/call" else None
        if tool == "slow":
            time.sleep(random.uniform(0, 2))
        if tool == "flood":
            for number in range(NOTICES):
                say(json.dumps(question(number) if number % 50 == 0 else notice(number)))
                sys.stderr.write("noise on standard error\n")
        if tool == "fault":
            kind = random.randrange(6)
            if kind == 0:
                os._exit(3)
            elif kind == 1:
                say("noise " * 1000)
            elif kind == 2:
                say(answer[: len(answer) // 2])
            elif kind == 3:
                os.close(1)
                time.sleep(3)
            elif kind == 4:
                if os.fork() == 0:
                    time.sleep(60)
                    os._exit(0)
                os._exit(0)
            else:
                sys.stdout.write("z" * 2_000_000)
                sys.stdout.flush()
                continue
        say(answer)


if __name__ == "__main__":
    try:
        over_http() if sys.argv[1] == "HTTP" else over_stdio()
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(0)
