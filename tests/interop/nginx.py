#!/usr/bin/env python3
"""The gateway behind nginx over TLS and under a path, with contrib/nginx/trunkline.conf as it is but for
names and ports: nginx.py GATEWAY_BINARY [SECONDS]

An HTTP+SSE client is sent to the path, has each event at once, and keeps a silent stream for SECONDS (75:
longer than nginx waits by default). A line `ok CHECK` each, as far as it comes. Needs nginx and openssl."""

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator

from servers import free_port

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = 1.0


def configuration(work: Path, port: int, gateway: int) -> Path:
    text = (ROOT / "contrib/nginx/trunkline.conf").read_text()
    for old, new in [
        ("server 127.0.0.1:4000;", f"server 127.0.0.1:{gateway};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/ssl/certs/mcp.example.org.pem", str(work / "cert.pem")),
        ("/etc/ssl/private/mcp.example.org.key", str(work / "key.pem")),
    ]:
        assert old in text, old
        text = text.replace(old, new)
    temp = "".join(
        f"{kind}_temp_path {work}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = work / "nginx.conf"
    path.write_text(
        f"daemon off;\npid {work}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temp}{text}}}\n"
    )
    return path


def connect(port: int, work: Path) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(work / "cert.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    # The certificate is of the name, the port is here.
    connection.sock = context.wrap_socket(
        socket.create_connection(("127.0.0.1", port), timeout=30), server_hostname="mcp.example.org"
    )
    return connection


def request(port: int, work: Path, method: str, path: str, body=None):
    connection = connect(port, work)
    headers = {"Host": "mcp.example.org", "Accept": "application/json, text/event-stream"}
    if body is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(body)
    connection.request(method, path, body, headers)
    return connection.getresponse()


def next_event(stream) -> tuple[str, str]:
    event, data = "message", ""
    while True:
        line = stream.readline().decode()
        assert line, "the stream was cut"
        if line in ("\n", "\r\n") and data:
            return event, data
        if line.startswith("event:"):
            event = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()


def certificate(work: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mcp.example.org",
         "-addext", "subjectAltName=DNS:mcp.example.org", "-keyout", work / "key.pem", "-out", work / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip


def gateway_settings(port: int) -> dict:
    return {
        "listen": f"127.0.0.1:{port}",
        "public_url": "https://mcp.example.org/trunk",
        "trusted_proxies": ["127.0.0.1"],
        "mcp_servers": {"demo": {"command": "trunkline", "args": ["demo"], "required": True}},
    }


@contextlib.contextmanager
def gateway_behind(binary: str, proxy: Callable[[Path, int, int], list[Any]]) -> Iterator[tuple[int, Path]]:
    """Runs the gateway, and the command that `proxy` makes of a folder, of the proxy's port and of the gateway's.
    Gives the folder, which has the proxy's certificate, and the proxy's port."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        certificate(work)
        port, gateway = free_port(), free_port()
        (work / "config.json").write_text(json.dumps(gateway_settings(gateway)))
        # What the proxy keeps in the user's folder is none of ours.
        homes = {"HOME": name, "XDG_DATA_HOME": name, "XDG_CONFIG_HOME": name}
        processes = [
            subprocess.Popen([binary, "serve", "--config", work / "config.json"]),
            subprocess.Popen(proxy(work, port, gateway), env=os.environ | homes),
        ]
        try:
            yield port, work
        finally:
            for process in processes:
                process.terminate()
                process.wait()


def nginx(work: Path, port: int, gateway: int) -> list[Any]:
    return ["nginx", "-p", work, "-e", "stderr", "-c", configuration(work, port, gateway)]


def main(binary: str, seconds: float) -> None:
    with gateway_behind(binary, nginx) as (port, work):
        check(port, work, seconds)


def did(name: str) -> None:
    print("ok", name, flush=True)


def check(port: int, work: Path, seconds: float) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if request(port, work, "GET", "/trunk/readyz").status == 200:
                break
        except OSError:
            pass
        assert time.monotonic() < deadline, "it does not become ready"
        time.sleep(0.1)

    began = time.monotonic()
    stream = request(port, work, "GET", "/trunk/sse")
    event, endpoint = next_event(stream)
    took = time.monotonic() - began
    assert event == "endpoint" and endpoint.startswith("/trunk/mcp/sse/messages?session_id="), endpoint
    assert took < AT_ONCE, f"the first event took {took:.1f} s"
    did("under-the-path")

    def call(number: int, method: str, params: dict) -> tuple[dict, float]:
        began = time.monotonic()
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        assert request(port, work, "POST", endpoint, message).status == 202
        answer = json.loads(next_event(stream)[1])
        assert answer["id"] == number, answer
        return answer, time.monotonic() - began

    client = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    call(1, "initialize", client)
    done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert request(port, work, "POST", endpoint, done).status == 202
    _, took = call(2, "tools/list", {})
    assert took < AT_ONCE, f"an event took {took:.1f} s"
    did("events-at-once")
    time.sleep(seconds)
    answer, took = call(3, "tools/call", {"name": "echo", "arguments": {"message": "still here"}})
    assert re.search("still here", json.dumps(answer)), answer
    assert took < AT_ONCE, f"an event after the silence took {took:.1f} s"
    did("stream-kept")
    listed = json.load(request(port, work, "GET", "/trunk/mcp/tools/list"))
    assert listed["tools"], listed
    did("rest")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 75)
