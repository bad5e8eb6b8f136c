#!/usr/bin/env python3
"""The soak: everything bad at once, for long, and nothing of it may stay.

    run.py GATEWAY_BINARY FAST_UPSTREAM_BINARY [--seconds N] [--visits N] [--keep]

    --seconds N  how long the load lasts (1800)
    --visits N   visits of clients a second (120); less if they would use more than CORES
    --keep       keep the folder with the log (it is kept anyway when something failed)

Clients of every kind, well and badly behaved, visit a gateway with good, dead, hung, flapping and hostile servers
while its configuration is reloaded. Passes if no call of the client in control.py fails, the process stays the same
and logs no panic, its memory does not grow, descriptors, threads and children go back to what they were, and it ends
with 0 when it is told to. Needs Linux and Python 3.10 or newer; everything is on 127.0.0.1.
"""

import argparse
import json
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from typing import Any

import http_client
import loads
import sampling
from http_client import Connection, request

HERE = pathlib.Path(__file__).resolve().parent
CONTROL_KEY = "control"
CONTROL_CALLS_PER_SECOND = 25
CLIENTS = 128
# What gateway, servers and clients may use together, of the machine's processors.
CORES = 1.3
SAMPLE_SECONDS = 5
WARM_UP_SECONDS = 20
RELOAD_SECONDS = 10
FLAP_SECONDS = 20
# What has no client any more is gone after this: idle sessions and connections, children, backed-off attempts.
REST_SECONDS = 25
# How much the last third's RSS may be above the middle third's: an allocator breathes that much.
RSS_GROWTH_MAX = 0.10
# Connections to servers that may be kept for the next call, whether or not the server has closed them since.
IDLE_CONNECTIONS = 48
DRAIN_MS = 5000
# After draining, children have 2 s to go by themselves and 2 s to go when told.
END_SECONDS = DRAIN_MS / 1000 + 5
LIMITS = {
    "connections": 600, "body_bytes": 1_048_576, "head_ms": 3000, "body_ms": 3000, "idle_ms": 5000, "write_ms": 2000,
    "sessions": 250, "sessions_per_key": 60, "session_idle_ms": 8000, "streams": 100, "stream_queue_bytes": 65536,
    "heartbeat_ms": 3000, "event_log_events": 64, "event_log_bytes": 65536, "parked_calls": 16,
    "parked_calls_per_key": 4, "parked_ms": 5000, "upstream_result_bytes": 1_048_576,
    "upstream_event_bytes": 1_048_576, "drain_ms": DRAIN_MS,
}  # fmt: skip


class Soak:
    def __init__(self, options: argparse.Namespace, folder: pathlib.Path) -> None:
        self.options, self.folder = options, folder
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.visits = [loads.Visit(0) for _ in range(CLIENTS)]
        self.stopping = threading.Event()
        self.rate = options.visits
        self.used = 0.0
        self.reloads = 0
        self.samples: list[sampling.Sample] = []
        self.rows = 0
        self.lanes: dict[str, list[float]] = {}
        self.failures: list[str] = []

    # ---- processes

    def start(self, name: str, *command: Any, **settings: Any) -> subprocess.Popen[str]:
        with open(self.folder / f"{name}.log", "a") as log:
            command = tuple(str(word) for word in command)
            pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": log}
            self.processes[name] = subprocess.Popen(command, text=True, **(pipes | settings))
        return self.processes[name]

    def first_line(self, name: str) -> str:
        out = self.processes[name].stdout
        assert out
        if not select.select([out], [], [], 15)[0] or not (line := out.readline()):
            raise SystemExit(f"soak: {name} said nothing")
        return line.strip()

    def start_all(self) -> None:
        fast = self.options.fast_upstream
        self.dead = socket.socket()  # a port that nobody else gets and where nobody listens
        self.dead.bind(("127.0.0.1", 0))
        self.flapping_port = free_port()
        for name, words in {"steady": [], "hung": ["hang"]}.items():
            self.start(name, fast, "127.0.0.1:0", *words)
        http_port = free_port()
        self.start("http", self.options.gateway, "demo", "--http", http_port)
        self.start("hostile", sys.executable, HERE / "hostile.py", "HTTP")
        self.flap()
        self.addresses = {name: self.first_line(name) for name in ("steady", "hung", "hostile")}
        self.addresses |= {"http": str(http_port)}
        self.config = self.folder / "config.json"
        self.write_config(calm=True)
        self.port = free_port()
        self.gateway = self.start(
            "gateway", self.options.gateway, "serve", "--config", self.config, "--listen", f"127.0.0.1:{self.port}"
        )
        until = time.monotonic() + 30
        while not self.ready():
            if time.monotonic() > until or self.gateway.poll() is not None:
                raise SystemExit("soak: the gateway is not ready\n" + self.log()[-2000:])
            time.sleep(0.1)
        for visit in self.visits:
            visit.port = self.port

    def ready(self) -> bool:
        try:
            with Connection(self.port) as connection:
                return connection.request(request("GET", "/readyz"))[0] == 200
        except OSError:
            return False

    def log(self) -> str:
        return (self.folder / "gateway.log").read_text(errors="replace")

    def flap(self) -> None:
        if process := self.processes.pop("flapping", None):
            process.kill()
            process.wait()
            return
        self.start("flapping", self.options.gateway, "demo", "--http", self.flapping_port, stdout=subprocess.DEVNULL)

    def end_all(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    # ---- the configuration

    def write_config(self, calm: bool = False) -> None:
        def url(port: object, path: str = "/mcp", **settings: Any) -> dict[str, Any]:
            base = f"http://{port}" if ":" in str(port) else f"http://127.0.0.1:{port}"
            return {"url": base + path, "transport": "http", **settings}

        at = self.addresses
        demo = {"command": "trunkline", "args": ["demo"]}
        noisy = {"command": sys.executable, "args": [str(HERE / "hostile.py"), "STDIO", str(self.folder)]}
        quick = {"timeout_ms": 1500, "connect_timeout_ms": 500, "max_in_flight": 16, "max_waiting": 16}
        servers = {
            "steady": url(at["steady"], required=True),
            "demo": demo | {"required": True, "max_in_flight": 64},
            "http": url(at["http"]),
            "fast": url(at["steady"], max_in_flight=16),
            "hung": url(at["hung"], **quick),
            "dead": url(self.dead.getsockname()[1], **quick),
            "flapping": url(self.flapping_port, **quick),
            "hostile": url(at["hostile"], **quick, max_sessions=4),
            "noisy": noisy | quick | {"max_sessions": 2},
            "changing": url(at["hostile"], "/changing/mcp", pin="enforce"),
        }
        keys = [
            {"name": "control", "key": CONTROL_KEY, "admin": True},
            {"name": "one", "key": "one", "calls_per_minute": 100_000},
            {"name": "two", "key": "two"},
            {"name": "meagre", "key": "meagre", "calls_per_minute": 30},
        ]
        if not calm:
            if random.random() < 0.5:
                keys.append({"name": "spare", "key": "spare", "servers": ["demo", "http", "fast", "hostile"]})
            if random.random() < 0.5:
                servers["extra"] = demo | {"description": f"Reload {self.reloads}"}
            if random.random() < 0.5:
                servers["more"] = url(at["http"], headers={"X-Reload": str(random.randrange(3))})
            servers["fast"] |= {"max_in_flight": random.choice([4, 16])}
            servers["changing"] |= {"pin": random.choice(["off", "warn", "enforce"])}
            servers["hostile"] |= {"timeout_ms": random.choice([800, 1500])}
            if random.random() < 0.3:
                del servers["noisy"]
        config = {
            "prefix": "always", "state_dir": str(self.folder / "state"), "api_keys": keys, "mcp_servers": servers,
            "limits": LIMITS, "log": {"level": "warn"},
        }  # fmt: skip
        text = json.dumps(config)
        if not calm and random.random() < 0.1:
            text = random.choice([text[:-5], "", text.replace("mcp_servers", "no_such_key")])
        part = self.config.with_suffix(".part")
        part.write_text(text)
        part.rename(self.config)

    def reload(self, calm: bool = False) -> None:
        self.write_config(calm)
        self.gateway.send_signal(signal.SIGHUP)
        self.reloads += 1

    # ---- load

    def client(self, visit: loads.Visit) -> None:
        while not self.stopping.is_set():
            # Each client makes its share of the visits; one that takes long makes fewer.
            began = time.monotonic()
            loads.visit_once(visit)
            pause = random.expovariate(self.rate / CLIENTS) - (time.monotonic() - began)
            self.stopping.wait(max(0.01, pause))

    def counts(self) -> Counter[str]:
        whole: Counter[str] = Counter()
        for visit in self.visits:
            whole.update(visit.counts.copy())
        return whole

    def answers(self) -> int:
        return sum(n for what, n in self.counts().items() if what.isdigit())

    def status(self) -> dict[str, Any]:
        with Connection(self.port) as connection:
            head = request("GET", "/status", Authorization=f"Bearer {CONTROL_KEY}")
            return json.loads(connection.request(head)[2])

    def ask_control(self) -> dict[str, list[float]]:
        control = self.processes["control"]
        assert control.stdin
        control.stdin.write("\n")
        control.stdin.flush()
        said = json.loads(self.first_line("control"))
        for lane, times in said["lanes"].items():
            self.lanes.setdefault(lane, []).extend(times)
        for failure in said["failures"]:
            print(f"control failed: {failure}", flush=True)
        self.failures += said["failures"]
        return said["lanes"]

    def cpu(self) -> float:
        total = sum(os.times()[:2])
        for process in self.processes.values():
            if process.poll() is None:
                total += sampling.cpu_seconds(process.pid, children_too=True)
        return total

    def pace(self, used: float) -> None:
        """Makes as many visits as the given share of the machine allows."""
        if used > CORES:
            self.rate = max(1.0, self.rate * 0.85)
        elif used < CORES * 0.8:
            self.rate = min(self.options.visits, self.rate * 1.1)

    def at_rest(self) -> sampling.Sample:
        self.reload(calm=True)
        if "flapping" not in self.processes:
            self.flap()
        time.sleep(REST_SECONDS)
        self.ask_control()
        return sampling.take(self.gateway.pid, 0)

    def load(self, seconds: float, rows: int) -> None:
        self.stopping.clear()
        self.samples, self.rows = [], 0
        threads = [threading.Thread(target=self.client, args=[visit], daemon=True) for visit in self.visits]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        due = {"sample": began + SAMPLE_SECONDS, "reload": began + RELOAD_SECONDS, "flap": began + FLAP_SECONDS}
        row_due, row_began, row_calls = seconds / rows, began, []
        answers = self.answers()
        before, cpu, cpu_at = self.status()["rejected"], self.cpu(), began
        print(HEAD)
        while (now := time.monotonic()) - began < seconds or self.rows < rows:
            if self.gateway.poll() is not None:
                raise SystemExit(f"soak: the gateway ended with {self.gateway.returncode}\n{self.log()[-3000:]}")
            if now >= due["reload"]:
                self.reload()
                due["reload"] += RELOAD_SECONDS
            if now >= due["flap"]:
                self.flap()
                due["flap"] += FLAP_SECONDS / 2
            if now >= due["sample"]:
                sample = sampling.take(self.gateway.pid, now - began)
                self.samples.append(sample)
                with open(self.folder / "samples.jsonl", "a") as out:
                    print(json.dumps(vars(sample)), file=out)
                row_calls += [t for times in self.ask_control().values() for t in times]
                used = self.cpu()
                self.used = max(0, used - cpu) / (now - cpu_at)
                self.pace(self.used)
                cpu, cpu_at = used, now
                due["sample"] += SAMPLE_SECONDS
                if sample.seconds >= row_due:
                    status = self.status()
                    self.row(sample, row_calls, now - row_began, status, before, self.answers() - answers)
                    before, answers = status["rejected"], self.answers()
                    row_due, row_began, row_calls = row_due + seconds / rows, now, []
            time.sleep(0.1)
        self.stopping.set()
        until = time.monotonic() + 2 * http_client.LIFE_SECONDS
        for thread in threads:
            thread.join(max(0, until - time.monotonic()))

    def row(
        self, sample: sampling.Sample, times: list[float], seconds: float, status: dict[str, Any],
        before: dict[str, int], answers: int,
    ) -> None:  # fmt: skip
        refused = {reason: n - before[reason] for reason, n in status["rejected"].items() if n > before[reason]}
        self.rows += 1
        print(
            f"{sample.seconds:6.0f} {sample.rss_kib / 1024:7.1f} {sample.threads:5} {sample.pool_threads:5}"
            f" {sample.descriptors:5} {sample.children:5} {status['limits']['sessions']['used']:5}"
            f" {answers / seconds:8.1f} {len(times) / seconds:7.1f} {sampling.percentile(times, 0.5):6.2f}"
            f" {sampling.percentile(times, 0.99):7.2f} {self.used:5.2f}  "
            + " ".join(f"{reason} {n}" for reason, n in sorted(refused.items(), key=lambda it: -it[1])),
            flush=True,
        )

    # ---- the whole

    def run(self) -> list[str]:
        """What failed."""
        self.start_all()
        pid = self.gateway.pid
        command = [sys.executable, HERE / "control.py", self.port, CONTROL_KEY, CONTROL_CALLS_PER_SECOND]
        self.start("control", *command, stdin=subprocess.PIPE)
        time.sleep(3)
        self.ask_control()
        # What is there after a little of the load is what the gateway keeps ready; more of it must not come.
        self.load(WARM_UP_SECONDS, 1)
        first = self.at_rest()
        self.load(self.options.seconds, 10)
        last = self.at_rest()
        self.processes["control"].kill()
        (self.folder / "status.json").write_text(json.dumps(self.status(), indent=1))

        self.gateway.terminate()
        began = time.monotonic()
        try:
            code: int | None = self.gateway.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        ended_after = time.monotonic() - began
        # What a child forked is of its group, and goes with it; the folder says that it is this run's.
        left = [c for c in sampling.children(1) if bytes(self.folder) in read(f"/proc/{c}/cmdline")]

        problems = [f"control: {failure}" for failure in self.failures[:20]]
        middle, end = sampling.rss_of_third(self.samples, 1), sampling.rss_of_third(self.samples, 2)
        print_sample("before the load", first)
        print_sample("after it", last)
        rises = {name: n - first.names[name] for name, n in last.names.items() if n != first.names[name]}
        print("threads by name, more or fewer:", {k: v for k, v in rises.items() if not k.startswith("http-")})
        print(f"RSS, medians of the thirds: {sampling.rss_of_third(self.samples, 0):.1f}, {middle:.1f}, {end:.1f} MiB")
        for lane, times in self.lanes.items():
            p50, p99 = sampling.percentile(times, 0.5), sampling.percentile(times, 0.99)
            print(f"control, {lane}: {len(times)} calls, p50 {p50:.2f} ms, p99 {p99:.2f} ms, most {max(times):.1f} ms")
        print(f"{self.reloads} reloads; ended with {code} after {ended_after:.2f} s; left behind: {left}")
        print("clients saw:", dict(self.counts().most_common()))
        if end > middle * (1 + RSS_GROWTH_MAX):
            problems.append(f"RSS grows: {middle:.1f} MiB, then {end:.1f} MiB")
        if left:
            problems.append(f"what children have started runs on: {left}")
        # A child of the gateway is three pipes and three threads; one may just be starting. Each thread of the pool
        # keeps a bell, and each server's link the connections it last used.
        spare = 8 + max(0, last.pool_threads - first.pool_threads) + IDLE_CONNECTIONS
        if last.descriptors > first.descriptors + spare:
            problems.append(f"descriptors: {first.descriptors}, then {last.descriptors}")
        if last.others() > first.others() + 8:
            problems.append(f"threads outside the pool: {first.others()}, then {last.others()}")
        if last.pool_threads > LIMITS["connections"]:
            problems.append(f"threads of the pool: {last.pool_threads}")
        if last.children > first.children + 1:
            problems.append(f"children: {first.children}, then {last.children}")
        if "panicked" in self.log():
            problems.append("the log has a panic")
        if code != 0:
            problems.append(f"SIGTERM: {'it did not end' if code is None else f'it ended with {code}'}")
        return problems


HEAD = (
    "     s RSS/MiB thrds  pool   fds child  sess answers/s  ctrl/s p50/ms  p99/ms  CPUs  refused"
)


def print_sample(when: str, s: sampling.Sample) -> None:
    print(
        f"{when}: RSS {s.rss_kib / 1024:.1f} MiB, {s.threads} threads ({s.pool_threads} of the pool),"
        f" {s.descriptors} descriptors, {s.children} children"
    )


def read(path: str) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError:
        return b""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gateway", type=pathlib.Path)
    parser.add_argument("fast_upstream", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=12000)
    parser.add_argument("--visits", type=float, default=120)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    options.gateway, options.fast_upstream = options.gateway.resolve(), options.fast_upstream.resolve()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="trunkline-soak-"))
    (folder / "state").mkdir(mode=0o700)
    soak = Soak(options, folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    problems = ["it did not come to its end"]
    try:
        problems = soak.run()
    finally:
        soak.stopping.set()
        soak.end_all()
        if problems or options.keep:
            print(f"log and configuration: {folder}")
        else:
            shutil.rmtree(folder)
    for problem in problems:
        print(f"FAILED: {problem}")
    print(f"soak of {options.seconds:.0f} s: {'failed' if problems else 'passed'}, {len(soak.failures)} control failures")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
