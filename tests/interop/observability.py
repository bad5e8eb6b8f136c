#!/usr/bin/env python3
"""Metrics and spans against what others make of them: Prometheus and the official protobufs of OTLP.

    observability.py TRUNKLINE

`promtool` and `prometheus` are those of $PROMETHEUS_BIN or of the PATH (Debian's package has both), and the package
`opentelemetry-proto` is to be had by this Python. Loopback only.
"""

import base64
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEADLINE_S = 30


def program(name):
    return str(pathlib.Path(os.environ["PROMETHEUS_BIN"]) / name) if "PROMETHEUS_BIN" in os.environ else name


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, body=None):
    request = urllib.request.Request(url, data=body and json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read().decode()


def wait_for(what, look):
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        try:
            if found := look():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"not within {DEADLINE_S} s: {what}")


SPANS = []


class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        # OTLP's JSON has ids in hexadecimal where protobuf's own mapping has base64 (OTLP, "JSON Protobuf Encoding").
        for scope in (scope for it in document["resourceSpans"] for scope in it["scopeSpans"]):
            for span in scope["spans"]:
                for key in ("traceId", "spanId", "parentSpanId"):
                    if key in span:
                        span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
        # Unknown members are an error here.
        message = json_format.ParseDict(document, ExportTraceServiceRequest())
        SPANS.extend(span for it in message.resource_spans for scope in it.scope_spans for span in scope.spans)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def main():
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    port, admin, prometheus_port = free_port(), free_port(), free_port()
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "config.json").write_text(json.dumps({
        "listen": f"127.0.0.1:{port}",
        "admin_listen": f"127.0.0.1:{admin}",
        "otlp": {"endpoint": f"http://127.0.0.1:{collector.server_port}"},
        "mcp_servers": {"demo": {"command": "trunkline", "args": ["demo"]}},
    }))
    rules = ROOT / "contrib/prometheus/trunkline.rules.yml"
    (folder / "prometheus.yml").write_text(json.dumps({
        "global": {"scrape_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "trunkline", "static_configs": [{"targets": [f"127.0.0.1:{admin}"]}]}],
    }))
    subprocess.run([program("promtool"), "check", "rules", rules], check=True)
    programs = [subprocess.Popen([sys.argv[1], "serve", "--config", folder / "config.json"])]
    try:
        base = f"http://127.0.0.1:{port}"
        wait_for("the demo serves", lambda: "echo" in get(f"{base}/mcp/tools/list"))
        get(f"{base}/mcp/tools/call", {"name": "echo", "arguments": {"message": "x"}})
        metrics = get(f"http://127.0.0.1:{admin}/metrics")
        subprocess.run([program("promtool"), "check", "metrics"], input=metrics, text=True, check=True)
        programs.append(subprocess.Popen([
            program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{prometheus_port}", "--log.level=warn",
        ]))
        api = f"http://127.0.0.1:{prometheus_port}/api/v1"
        query = "trunkline_tool_calls_total%7Btool=%22echo%22,outcome=%22ok%22%7D"
        wait_for("the call is scraped", lambda: json.loads(get(f"{api}/query?query={query}"))["data"]["result"])
        groups = json.loads(get(f"{api}/rules"))["data"]["groups"]
        assert sum(len(group["rules"]) for group in groups) >= 10, groups
        kinds = wait_for("both spans of the call come", lambda: {
            span.kind for span in SPANS if span.name == "tools/call demo-echo"} >= {2, 3})
        assert kinds and len({span.trace_id for span in SPANS if span.name == "tools/call demo-echo"}) == 1
    finally:
        for it in programs:
            it.terminate()
        codes = [it.wait(timeout=DEADLINE_S) for it in programs]
    assert codes[0] == 0, codes
    print("metrics and spans are what Prometheus and OTLP's protobufs take")


if __name__ == "__main__":
    main()
