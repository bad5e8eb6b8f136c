#!/usr/bin/env python3
"""Metrics and spans against what others make of them: Prometheus and the official protobufs of OTLP.

    observability.py TRUNKLINE

A line `ok CHECK` each, as far as it comes. `promtool` and `prometheus` are those of the PATH (Debian's package has
both), and the package `opentelemetry-proto` is to be had by this Python. Loopback only.
"""

import base64
import http.server
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from servers import free_port

CONTRIB = pathlib.Path(__file__).resolve().parents[2] / "contrib"
DEADLINE_S = 30


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


def did(check):
    print("ok", check, flush=True)


def expressions(of):
    """What the panels of a dashboard ask Prometheus for."""
    if isinstance(of, list):
        return [found for it in of for found in expressions(it)]
    if not isinstance(of, dict):
        return []
    own = [of["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")] if "expr" in of else []
    return own + [found for it in of.values() for found in expressions(it)]


def main(gateway, folder):
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    port, admin, prometheus_port = free_port(), free_port(), free_port()
    (folder / "config.json").write_text(json.dumps({
        "listen": f"127.0.0.1:{port}",
        "admin_listen": f"127.0.0.1:{admin}",
        "otlp": {"endpoint": f"http://127.0.0.1:{collector.server_port}"},
        "mcp_servers": {"demo": {"command": "trunkline", "args": ["demo"]}},
    }))
    rules = CONTRIB / "prometheus/trunkline.rules.yml"
    (folder / "prometheus.yml").write_text(json.dumps({
        "global": {"scrape_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "trunkline", "static_configs": [{"targets": [f"127.0.0.1:{admin}"]}]}],
    }))
    for what, file in (("rules", rules), ("config", CONTRIB / "prometheus/prometheus.yml")):
        subprocess.run(["promtool", "check", what, file], check=True)
        did(f"{what}-file")
    programs = [subprocess.Popen([gateway, "serve", "--config", folder / "config.json"])]
    try:
        base = f"http://127.0.0.1:{port}"
        wait_for("the demo serves", lambda: "echo" in get(f"{base}/mcp/tools/list"))
        get(f"{base}/mcp/tools/call", {"name": "echo", "arguments": {"message": "x"}})
        metrics = get(f"http://127.0.0.1:{admin}/metrics")
        subprocess.run(["promtool", "check", "metrics"], input=metrics, text=True, check=True)
        did("metrics")
        spans_of_the_call()
        did("spans")
        programs.append(subprocess.Popen([
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{prometheus_port}", "--log.level=warn",
        ]))
        what_prometheus_has(f"http://127.0.0.1:{prometheus_port}/api/v1")
    finally:
        for it in programs:
            it.terminate()
        codes = [it.wait(timeout=DEADLINE_S) for it in programs]
    assert codes[0] == 0, codes


def spans_of_the_call():
    def spans():
        return [span for span in SPANS if span.name == "tools/call demo-echo"]

    wait_for("both spans of the call come", lambda: {span.kind for span in spans()} >= {2, 3})
    assert len({span.trace_id for span in spans()}) == 1, spans()


def what_prometheus_has(api):
    def query(text):
        answer = json.loads(get(f"{api}/query?{urllib.parse.urlencode({'query': text})}"))
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    call = 'trunkline_tool_calls_total{tool="echo",outcome="ok"}'
    wait_for("the call is scraped", lambda: query(call))
    did("scraped")
    groups = json.loads(get(f"{api}/rules"))["data"]["groups"]
    assert sum(len(group["rules"]) for group in groups) >= 10, groups
    did("rules-loaded")
    asked = expressions(json.loads((CONTRIB / "grafana/trunkline.json").read_text()))
    assert len(asked) >= 10, asked
    for it in asked:
        query(it)
    did("dashboard")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        main(sys.argv[1], pathlib.Path(work))
