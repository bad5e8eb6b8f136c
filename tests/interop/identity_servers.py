"""What the checks of identity stand on: a real authorization server, servers that want its tokens, a gateway between
them and its users, and a browser."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack
from typing import Any, Callable

from results import Results
from servers import CACHE, HERE, MODULES, NODE, PYTHON, Server, free_port, get_status

BROWSER = HERE / "client/browser.py"
IDENTITY = CACHE / "identity"
# Of a sign-in, or of one command, on a busy machine.
SECONDS = 30


def ask(url: str, body: Any = None, headers: dict[str, str] | None = None, seconds: float = SECONDS) -> "Answer":
    """GET, or POST of that JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"} | (headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return Answer(answer.status, dict(answer.headers.items()), answer.read().decode())
    except urllib.error.HTTPError as e:
        return Answer(e.code, dict(e.headers.items()), e.read().decode())


class Answer:
    def __init__(self, status: int, headers: dict[str, str], text: str) -> None:
        self.status, self.text = status, text
        self.headers = {name.lower(): value for name, value in headers.items()}

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    def __repr__(self) -> str:
        return f"{self.status} {self.text[:600]}"


def until(what: str, is_so: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """What is so, as soon as it is."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            if last := is_so():
                return last
        except (OSError, ValueError, KeyError, StopIteration) as e:
            last = repr(e)
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds:.0f} s ({last})")


class AuthorizationServer(Server):
    """oidc-provider, and what it can be told to do otherwise."""

    def __init__(self, folder: pathlib.Path, *options: str) -> None:
        self.port, self.keys = free_port(), folder
        self.issuer = f"http://127.0.0.1:{self.port}"
        script = HERE / "fixture/authorization_server.mjs"
        command = [NODE, script, "--port", self.port, "--modules", IDENTITY, "--keys", folder, *options]
        super().__init__("authorization server", command, folder / "authorization-server.log")
        self.seen: list[dict[str, Any]] = []

    def tell(self, **settings: Any) -> None:
        self.admin("set", settings)

    def admin(self, what: str, body: Any) -> Any:
        return ask(f"{self.issuer}/admin/{what}", body).json

    def exchanges(self) -> list[dict[str, Any]]:
        """The exchanges since the last call of this."""
        new = ask(f"{self.issuer}/admin/log").json
        self.seen += new
        return new

    def token(self, audience: str, client: str = "machine", **more: str) -> str:
        """An access token for the client itself."""
        secret = {"machine": "the-secret-of-machine"}[client]
        form = {"grant_type": "client_credentials", "scope": "mcp:read", "resource": audience} | more
        return post(f"{self.issuer}/token", form, client, secret)["access_token"]

    def secrets(self) -> set[str]:
        """Everything that it has given away, or was shown, and that nobody else may see."""
        self.exchanges()
        found: set[str] = set()
        for exchange in self.seen:
            if isinstance(exchange["body"], dict):
                names = ("code", "code_verifier", "refresh_token", "client_assertion", "token")
                found |= {str(exchange["body"][name]) for name in names if exchange["body"].get(name)}
            answer = exchange.get("answer") or ""
            names_in = r'"(?:access_token|refresh_token|client_secret|registration_access_token|id_token)":"([^"]+)"'
            found |= set(re.findall(names_in, answer))
        return {secret for secret in found if len(secret) > 8}


def post(url: str, form: dict[str, str], user: str, password: str) -> Any:
    from base64 import b64encode

    head = {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}
    request = urllib.request.Request(url, urllib.parse.urlencode(form).encode(), head)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


class Protected(Server):
    """A server that wants a token, on a stock SDK: 'python', 'introspecting' or 'typescript'."""

    def __init__(self, kind: str, issuer: str, folder: pathlib.Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        if kind == "typescript":
            script = HERE / "fixture/protected_server.mjs"
            command = [NODE, script, "--port", self.port, "--issuer", issuer, "--modules", MODULES]
        else:
            more = ["--introspection"] if kind == "introspecting" else []
            command = [PYTHON, HERE / "fixture/protected_server.py", self.port, issuer, *more]
        super().__init__(f"protected server {kind}", command, folder / f"protected-{kind}.log")


class Trunkline(Server):
    """A gateway with that configuration, on a port of its own, and the commands of its users."""

    def __init__(
        self, binary: str, config: dict[str, Any], folder: pathlib.Path, env: dict[str, str] | None = None, port: int = 0
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.binary, self.folder, self.port = binary, folder, port or free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.config = folder / "config.json"
        self.write({"public_url": self.base, "state_dir": str(folder / "state"), "first_list_ms": 500} | config)
        command = [binary, "serve", "--config", self.config, "--listen", f"127.0.0.1:{self.port}"]
        super().__init__("gateway", command, folder / f"gateway-{self.port}.log", {"BROWSER": ""} | (env or {}))

    def write(self, config: dict[str, Any]) -> None:
        self.config.write_text(json.dumps(config, indent=2))

    def __enter__(self) -> "Trunkline":
        super().__enter__()
        self.wait_for("answering", lambda: get_status(f"{self.base}/healthz") == 200)
        return self

    def status(self, server: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
        upstreams = ask(f"{self.base}/status", headers=headers).json["upstreams"]
        return next(it for it in upstreams if it["server"] == server)

    def wait_state(self, server: str, state: str, seconds: float = SECONDS) -> None:
        def is_so() -> bool:
            self.last = self.status(server)
            return self.last["state"] == state

        try:
            until(f"{server} is {state}", is_so, seconds)
        except AssertionError as e:
            raise AssertionError(f"{e}: {json.dumps(self.last)[:600]}") from e

    def call(self, name: str, arguments: Any = None, headers: dict[str, str] | None = None, seconds: float = SECONDS) -> Answer:
        return ask(f"{self.base}/mcp/tools/call", {"name": name, "arguments": arguments or {}}, headers, seconds)

    def says(self, name: str, headers: dict[str, str] | None = None) -> str:
        """The text that a tool answers with."""
        answer = self.call(name, headers=headers)
        assert answer.status == 200 and not answer.json.get("isError"), answer
        return answer.json["content"][0]["text"]

    def waits_until_says(self, name: str, text: str, headers: dict[str, str] | None = None) -> None:
        """Until the tool answers so: a list may come a moment after the sign-in."""
        self.answer: Answer | str = "no answer"

        def is_so() -> bool:
            self.answer = self.call(name, headers=headers)
            return self.answer.status == 200 and text in self.answer.text

        try:
            until(f"{name} says {text!r}", is_so)
        except AssertionError as e:
            raise AssertionError(f"{e}: {self.answer}") from e

    def runs(self, *words: str, env: dict[str, str] | None = None, seconds: float = SECONDS) -> tuple[int, str]:
        """Runs a command of the gateway; its exit code and all that it says."""
        command = [self.binary, *words, "--config", str(self.config)]
        log = self.folder / f"{'-'.join(words)}-{time.monotonic_ns()}.txt"
        with open(log, "w") as out:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=seconds,
                env=os.environ | {"BROWSER": ""} | (env or {}),
            )
        return done.returncode, log.read_text(errors="replace")

    def login(self, server: str, user: str) -> str:
        """`trunkline login`, with a browser; what it says."""
        code, said = self.runs("login", server, env=browser_of(user, self.folder))
        assert code == 0, f"it ended with {code}: {said[-800:]}"
        return said

    def login_paste(self, server: str, user: str) -> str:
        """`trunkline login --paste`, with a browser somewhere else; what it says."""
        log = self.folder / f"login-paste-{server}.txt"
        command = [self.binary, "login", server, "--paste", "--config", str(self.config)]
        with open(log, "w") as out:
            it = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=os.environ | {"BROWSER": ""}, text=True
            )
            try:
                page = until("a URL", lambda: it.poll() is not None or re.search(r"https?://\S+[?&]state=\S+", log.read_text()))
                assert page is not True, f"it ended with {it.returncode}: {log.read_text()[-800:]}"
                env = os.environ | {"RIG_USER": user, "RIG_BROWSER": "print"}
                back = subprocess.check_output([sys.executable, BROWSER, page[0]], text=True, env=env, timeout=SECONDS)
                it.communicate(back, timeout=SECONDS)
            finally:
                it.kill()
                it.wait()
        said = log.read_text(errors="replace")
        assert it.returncode == 0, f"it ended with {it.returncode}: {said[-800:]}"
        return said


def browser_of(user: str, folder: pathlib.Path, **more: str) -> dict[str, str]:
    """The environment of a program whose $BROWSER is that user's: a program of its own, as $BROWSER is run with the
    variables that browsers need and no others."""
    told = {"RIG_USER": user, "RIG_BROWSER_LOG": str(folder / "browser.txt")} | more
    folder.mkdir(exist_ok=True)
    program = folder / f"browser-of-{user}.sh"
    words = [f"{name}={shlex.quote(value)}" for name, value in told.items()]
    program.write_text("\n".join(["#!/bin/sh", *(f"export {it}" for it in words), f'exec {shlex.quote(str(BROWSER))} "$@"', ""]))
    program.chmod(0o755)
    return {"BROWSER": str(program)}


Row = tuple[str, Callable[..., None]]


def run_rows(results: Results, rows: list[Row], *given: Any) -> None:
    """Runs each check that is wanted, after the one before; what it raises is why it failed."""
    for name, check in rows:
        if not results.wants(name):
            continue
        began, why = time.monotonic(), None
        try:
            check(*given)
        except Exception as e:  # a row that fails is no crash
            why = str(e) if isinstance(e, AssertionError) else f"{type(e).__name__}: {e}"
            why = why or repr(e)
        results.add(name, why, time.monotonic() - began)


def run_in_world(results: Results, rows: list[Row], world: Callable[[ExitStack], Any], folder: pathlib.Path) -> None:
    """Runs the checks with what they stand on, which is made for them if any is wanted."""
    if not any(results.wants(name) for name, _ in rows):
        return
    folder.mkdir()
    with ExitStack() as stack:
        try:
            made = world(stack)
        except Exception as e:
            return fail_rows(results, rows, f"{type(e).__name__}: {str(e)[:600]}")
        run_rows(results, rows, made)


def fail_rows(results: Results, rows: list[Row], why: str) -> None:
    """What they stand on did not come about."""
    for name, _ in rows:
        if results.wants(name):
            results.add(name, why)
