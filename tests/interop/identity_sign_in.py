"""The gateway as OAuth client: it signs in to protected servers on stock SDKs, at a real authorization server, in each way
that users have, and goes on when tokens end, keys change, and the authorization server fails or lies."""

import json
import os
import pathlib
import stat
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Iterator

from identity_servers import (
    AuthorizationServer,
    Protected,
    Row,
    Trunkline,
    ask,
    browser_of,
    run_in_world,
    until,
)
from results import Results
from servers import CACHE, HERE, NODE, free_port
from servers import run as run_command

# What a sign-in at a server that lies, or does not answer, may take until it is refused.
REFUSED_SECONDS = 40


class World:
    """Three protected servers and what the gateway has configured for them."""

    def __init__(self, stack: ExitStack, binary: str, folder: pathlib.Path) -> None:
        self.binary, self.folder = binary, folder
        port = free_port()
        # Its client metadata document has an https URL, as it must; the authorization server fetches it from here.
        self.documented = f"http://127.0.0.1:{port}/oauth/client.json"
        document = f"https://gateway.example.org/oauth/client.json={self.documented}"
        self.issuer = stack.enter_context(AuthorizationServer(folder, "--document", document))
        self.issuer.wait_port(self.issuer.port)
        kinds = ("python", "introspecting", "typescript")
        self.servers = {kind: Protected(kind, self.issuer.issuer, folder) for kind in kinds}
        for server in self.servers.values():
            stack.enter_context(server)
        for server in self.servers.values():
            server.wait_port(server.port)
        self.issuer.tell(opaque=[self.servers["introspecting"].url])
        self.document_port = port
        self.gateway = stack.enter_context(Trunkline(binary, self.config(), folder / "gateway"))

    def config(self) -> dict[str, Any]:
        python, typescript = self.servers["python"].url, self.servers["typescript"].url
        machine = {"grant": "client_credentials", "scopes": ["mcp:read"]}
        key = {"client_id": "machine-key", "private_key_file": str(self.folder / "machine.pem")}
        servers: dict[str, Any] = {kind: {"url": server.url, "oauth": True} for kind, server in self.servers.items()}
        servers["known"] = {
            "url": typescript,
            "oauth": {"client_id": "known", "client_secret": "the-secret-of-known", "scopes": ["mcp:read"]},
        }
        secret = {"client_id": "machine", "client_secret": "the-secret-of-machine"}
        servers["machine"] = {"url": python, "oauth": machine | secret}
        servers["machine_key"] = {"url": python, "oauth": machine | key}
        servers["open"] = {"command": "trunkline", "args": ["demo"]}
        return {"mcp_servers": servers}

    def tokens_asked(self) -> list[dict[str, Any]]:
        """The requests to the token endpoint since the last look."""
        return [it for it in self.issuer.exchanges() if it["path"] == "/token"]


@contextmanager
def signed_in(w: World, name: str, kind: str, user: str = "", **settings: Any) -> Iterator[Trunkline]:
    """A gateway of its own that is signed in to a server, under these settings of the issuer: its serve has a browser, or
    `user` has signed in by a command before it began."""
    servers = {kind: {"url": w.servers[kind].url, "oauth": True}, "open": {"command": "trunkline", "args": ["demo"]}}
    w.issuer.tell(**settings)
    try:
        folder = w.folder / name
        gateway = Trunkline(w.binary, {"mcp_servers": servers}, folder, {} if user else browser_of("alice", folder))
        if user:
            gateway.login(kind, user)
        with gateway:
            gateway.waits_until_says(f"{kind}-whoami", f"{user or 'alice'} mcp:read")
            w.tokens_asked()
            yield gateway
    finally:
        w.issuer.tell(**dict.fromkeys(settings))


def needs_sign_in(w: World) -> None:
    w.gateway.wait_state("python", "needs_sign_in")
    answer = w.gateway.call("python-whoami")
    assert answer.status >= 400 and "trunkline login python" in answer.text, answer
    assert "trunkline login python" in json.dumps(w.gateway.status("python")), w.gateway.status("python")
    w.gateway.wait_state("open", "ready")


def login_paste(w: World) -> None:
    w.gateway.login_paste("python", "alice")
    w.gateway.waits_until_says("python-whoami", "alice mcp:read")


def login_browser(w: World) -> None:
    w.gateway.login("typescript", "alice")
    w.gateway.waits_until_says("typescript-whoami", "alice mcp:read")


def login_known(w: World) -> None:
    w.issuer.exchanges()
    w.gateway.login("known", "bob")
    w.gateway.waits_until_says("known-whoami", "bob mcp:read")
    log = w.issuer.exchanges()
    assert not [it for it in log if it["path"] == "/reg"], "it has registered although a client is configured"


def login_other(w: World) -> None:
    """Another account takes the place of the one before, in the gateway that runs."""
    w.gateway.login("known", "alice")
    w.gateway.waits_until_says("known-whoami", "alice mcp:read")


def login_refused(w: World) -> None:
    code, said = w.gateway.runs("login", "introspecting", env=browser_of("mallory", w.folder))
    assert code == 1 and "access_denied" in said, f"{code} {said}"
    assert w.gateway.status("introspecting")["state"] == "needs_sign_in", w.gateway.status("introspecting")


def console(w: World) -> None:
    command = [NODE, HERE / "console_sign_in.mjs", w.gateway.base, CACHE / "browser", "introspecting", "alice"]
    log = w.folder / "console-sign-in.txt"
    path = f"{CACHE / 'bin'}:{os.environ['PATH']}"
    code = run_command(command, log, 60, {"PATH": path})
    assert code == 0, f"it ended with {code}: {log.read_text()[-1200:]}"
    w.gateway.waits_until_says("introspecting-whoami", "alice mcp:read")


def client_credentials(w: World) -> None:
    w.gateway.waits_until_says("machine-whoami", "machine mcp:read")


def private_key(w: World) -> None:
    w.gateway.waits_until_says("machine_key-whoami", "machine-key mcp:read")


def discovered(w: World) -> None:
    """What the sign-ins so far have asked for."""
    seen = w.issuer.seen + w.issuer.exchanges()
    authorized = [it["query"] for it in seen if it["path"] == "/auth"]
    assert authorized, "no sign-in"
    for query in authorized:
        assert query.get("code_challenge_method") == "S256" and query.get("resource"), query
    resources = {query["resource"] for query in authorized}
    assert resources <= {server.url for server in w.servers.values()}, resources
    for exchange in seen:
        if exchange["path"] == "/token" and exchange["body"].get("grant_type") == "authorization_code":
            assert exchange["body"].get("resource"), f"no resource in a token request: {exchange['body'].keys()}"
        if exchange["path"] == "/reg":
            assert "refresh_token" in exchange["body"].get("grant_types", []), exchange["body"]
            assert exchange["body"].get("application_type") in ("native", "web"), exchange["body"]


def token_renewed(w: World) -> None:
    """Tokens that end within seconds are renewed before that, once each, while calls come from everywhere."""
    failed: list[str] = []
    with signed_in(w, "renewed", "typescript", token_seconds=6) as gateway:
        end = time.monotonic() + 12

        def user() -> None:
            while time.monotonic() < end:
                answer = gateway.call("typescript-whoami")
                if answer.status != 200 or "alice" not in answer.text:
                    failed.append(str(answer))
                time.sleep(0.1)

        users = [threading.Thread(target=user) for _ in range(8)]
        for it in users:
            it.start()
        for it in users:
            it.join()
        asked = w.tokens_asked()
    assert not failed, f"{len(failed)} calls failed: {failed[0]}"
    grants = [it["body"].get("grant_type") for it in asked]
    assert grants and set(grants) == {"refresh_token"} and len(grants) <= 6, grants
    assert all(it["status"] == 200 for it in asked), [(it["status"], it["answer"]) for it in asked]
    used = [it["body"]["refresh_token"] for it in asked]
    assert len(used) == len(set(used)), "a refresh token was used twice"


def commands_beside(w: World) -> None:
    """Commands that use the same credentials as the gateway that runs renew them too, and no refresh token is used twice."""
    with signed_in(w, "beside", "typescript", token_seconds=6) as gateway:
        end, failed = time.monotonic() + 12, []

        def commands() -> None:
            while time.monotonic() < end:
                code, said = gateway.runs("tools", "typescript")
                if code != 0 or "whoami" not in said:
                    failed.append(f"{code} {said}")

        users = [threading.Thread(target=commands) for _ in range(3)]
        for it in users:
            it.start()
        while time.monotonic() < end:
            gateway.waits_until_says("typescript-whoami", "alice")
        for it in users:
            it.join()
        assert not failed, f"{len(failed)} commands failed: {failed[0]}"
        asked = [it for it in w.tokens_asked() if it["body"].get("grant_type") == "refresh_token"]
        assert asked and all(it["status"] == 200 for it in asked), [(it["status"], it["answer"]) for it in asked]
        used = [it["body"]["refresh_token"] for it in asked]
        assert len(used) == len(set(used)), "a refresh token was used twice"


def post_mcp(url: str, token: str) -> int:
    """The status of a request to a protected server without the gateway."""
    head = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "interop", "version": "1"}}
    return ask(url, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}, head).status


def keys_rotated(w: World) -> None:
    """The server does not take what was signed with the old key: one renewal, and the call goes on."""
    with signed_in(w, "rotated", "typescript") as gateway:
        rotate(w)
        gateway.waits_until_says("typescript-whoami", "alice")
        renewed = w.tokens_asked()
        assert len(renewed) == 1 and renewed[0]["body"]["grant_type"] == "refresh_token", renewed


def signed_in_twice(w: World) -> None:
    """The same when a command has signed in again meanwhile, with tokens that the server does not take either."""
    with signed_in(w, "twice", "typescript") as gateway:
        gateway.login("typescript", "alice")
        rotate(w)
        gateway.waits_until_says("typescript-whoami", "alice")


def rotate(w: World) -> None:
    """New keys at the issuer. The server asks for them when it sees a token with an unknown one, and then has only these."""
    w.issuer.admin("rotate", {})
    url = w.servers["typescript"].url
    status = post_mcp(url, w.issuer.token(url))
    assert status == 200, status
    w.tokens_asked()


def token_revoked(w: World) -> None:
    """Its tokens are gone in the middle: one try to renew, then it needs a sign-in, and the others serve on."""
    with signed_in(w, "revoked", "introspecting", "bob") as gateway:
        w.issuer.admin("revoke", {"user": "bob"})
        answer = gateway.call("introspecting-whoami")
        assert answer.status >= 400 and "trunkline login introspecting" in answer.text, answer
        gateway.wait_state("introspecting", "needs_sign_in")
        refreshes = [it for it in w.tokens_asked() if it["body"].get("grant_type") == "refresh_token"]
        assert len(refreshes) <= 1, f"{len(refreshes)} tries to renew"
        assert gateway.says("open-time")
        gateway.login("introspecting", "alice")
        gateway.waits_until_says("introspecting-whoami", "alice")


def issuer_down(w: World) -> None:
    """What is signed in goes on while its token is good, and comes back by itself when the authorization server does."""
    with signed_in(w, "down", "python", token_seconds=6) as gateway:
        w.issuer.tell(down=True)
        try:
            assert "alice" in gateway.says("python-whoami")
            time.sleep(7)
            began = time.monotonic()
            answer = gateway.call("python-whoami", seconds=90)
            took = time.monotonic() - began
            assert answer.status >= 400, answer
            assert took < REFUSED_SECONDS, f"it took {took:.0f} s"
            assert "login" not in answer.text, f"nobody has to sign in: {answer}"
            assert gateway.says("open-time")
        finally:
            w.issuer.tell(down=None)
        gateway.waits_until_says("python-whoami", "alice")


def issuer_slow(w: World) -> None:
    """A renewal that takes seconds holds back the calls of that server, which go on then, and no others."""
    with signed_in(w, "slow", "python", token_seconds=4) as gateway:
        w.issuer.tell(slow_ms=3000)
        try:
            time.sleep(4.5)
            said: list[Any] = []
            calls = [threading.Thread(target=lambda: said.append(gateway.call("python-whoami"))) for _ in range(4)]
            for it in calls:
                it.start()
            began = time.monotonic()
            assert gateway.says("open-time")
            took = time.monotonic() - began
            for it in calls:
                it.join()
        finally:
            w.issuer.tell(slow_ms=None)
        assert took < 1.5, f"another server took {took:.1f} s"
        assert all(it.status == 200 and "alice" in it.text for it in said), said
        assert w.tokens_asked(), "nothing was renewed"


def step_up(w: World) -> None:
    """A call that wants another scope leads to another sign-in, and goes on."""
    folder = w.folder / "step-up"
    config = {"mcp_servers": {"typescript": {"url": w.servers["typescript"].url, "oauth": True}}}
    with Trunkline(w.binary, config, folder, browser_of("alice", folder)) as gateway:
        gateway.waits_until_says("whoami", "alice mcp:read")
        w.issuer.exchanges()
        assert gateway.says("write") == "alice mcp:read mcp:write"
        scopes = [it["query"].get("scope", "").split() for it in w.issuer.exchanges() if it["path"] == "/auth"]
        assert len(scopes) == 1 and {"mcp:read", "mcp:write"} <= set(scopes[0]), scopes
        assert "mcp:write" in gateway.says("whoami")


def by_serve(w: World) -> None:
    """serve opens $BROWSER by itself, and a call that comes meanwhile waits."""
    folder = w.folder / "by-serve"
    config = {"mcp_servers": {"python": {"url": w.servers["python"].url, "oauth": True}}}
    with Trunkline(w.binary, config, folder, browser_of("bob", folder)) as gateway:
        answer = gateway.call("whoami")
        if answer.status == 404:
            gateway.waits_until_says("whoami", "bob mcp:read")
        else:
            assert answer.status == 200 and "bob mcp:read" in answer.text, answer
        opened = (folder / "browser.txt").read_text().count("open ")
        assert opened == 1, f"the browser was opened {opened} times"


def client_document(w: World) -> None:
    """The client is named by the document that the gateway serves."""
    folder = w.folder / "document"
    config = {
        "public_url": "https://gateway.example.org",
        "allowed_hosts": ["127.0.0.1", "localhost", "gateway.example.org"],
        "mcp_servers": {"typescript": {"url": w.servers["typescript"].url, "oauth": True}},
    }
    at = f"https://gateway.example.org=http://127.0.0.1:{w.document_port}"
    w.issuer.exchanges()
    with Trunkline(w.binary, config, folder, browser_of("alice", folder, RIG_BROWSER_AT=at), w.document_port) as gateway:
        gateway.waits_until_says("whoami", "alice mcp:read")
    log = w.issuer.exchanges()
    clients = {it["query"].get("client_id") for it in log if it["path"] == "/auth"}
    assert clients == {"https://gateway.example.org/oauth/client.json"}, clients
    assert not [it for it in log if it["path"] == "/reg"], "it has registered beside that"


def restarted(w: World) -> None:
    """What was signed in is signed in after a restart."""
    w.gateway.stop()
    with Trunkline(w.binary, w.config(), w.folder / "gateway") as again:
        again.waits_until_says("python-whoami", "alice")
        again.waits_until_says("introspecting-whoami", "mcp:read")


def kept_well(w: World) -> None:
    """What is kept is for its owner alone and sealed, and no output has a secret."""
    secrets = w.issuer.secrets() | {"the-secret-of-machine", "the-secret-of-known"}
    assert len(secrets) > 10, "no secrets were seen"
    kept = [file for file in w.folder.rglob("state/**/*") if file.is_file()]
    assert kept, "nothing is kept"
    for file in kept:
        mode = stat.S_IMODE(file.stat().st_mode)
        assert mode & 0o077 == 0, f"{file} has the mode {mode:o}"
        content = file.read_bytes()
        found = [it for it in secrets if it.encode() in content]
        assert not found, f"{file} has a secret as it is"
    outputs = [file for file in w.folder.rglob("*") if file.suffix in (".txt", ".log") and "state" not in file.parts]
    outputs = [it for it in outputs if it.name.startswith(("gateway", "login", "logout", "console"))]
    for file in outputs:
        text = file.read_text(errors="replace")
        found = [it for it in secrets if it in text]
        assert not found, f"{file} has a secret: {found[0][:12]}…"


def logout(w: World) -> None:
    with Trunkline(w.binary, w.config(), w.folder / "gateway") as gateway:
        gateway.waits_until_says("python-whoami", "alice")
        w.issuer.exchanges()
        code, said = gateway.runs("logout", "python")
        assert code == 0, said
        revoked = [it for it in w.issuer.exchanges() if it["path"] == "/token/revocation"]
        assert revoked, "its tokens were not revoked"
        gateway.wait_state("python", "needs_sign_in")
        assert gateway.call("python-whoami").status >= 400


def lies(**settings: Any) -> Any:
    """A check that a sign-in with these settings of the authorization server is refused, soon, and without a token."""

    def check(w: World) -> None:
        folder = w.folder / f"lie-{'-'.join(settings)}-{time.monotonic_ns()}"
        config = {"mcp_servers": {"python": {"url": w.servers["python"].url, "oauth": True}}}
        gateway = Trunkline(w.binary, config, folder)  # only its commands
        w.issuer.exchanges()
        w.issuer.tell(**settings)
        began = time.monotonic()
        try:
            code, said = gateway.runs("login", "python", env=browser_of("alice", folder), seconds=REFUSED_SECONDS)
        finally:
            w.issuer.tell(**dict.fromkeys(settings))
        took = time.monotonic() - began
        assert code == 1, f"it ended with {code}: {said[-600:]}"
        assert "panicked" not in said and len(said.strip()) > 20, said
        tokens = [it for it in w.tokens_asked() if it["status"] == 200 and '"access_token"' in it["answer"]]
        assert not tokens, f"a token was got all the same: {said}"
        assert took < REFUSED_SECONDS, took

    return check


ELSEWHERE = "http://169.254.169.254/latest/meta-data"
ROWS: list[Row] = [
    ("identity sign-in serve needs-sign-in", needs_sign_in),
    ("identity sign-in login paste", login_paste),
    ("identity sign-in login browser", login_browser),
    ("identity sign-in login configured-client", login_known),
    ("identity sign-in login other-account", login_other),
    ("identity sign-in login refused", login_refused),
    ("identity sign-in console button", console),
    ("identity sign-in serve client-credentials", client_credentials),
    ("identity sign-in serve private-key-jwt", private_key),
    ("identity sign-in wire discovery", discovered),
    ("identity sign-in serve browser", by_serve),
    ("identity sign-in serve client-document", client_document),
    ("identity sign-in serve step-up", step_up),
    ("identity sign-in token renewed", token_renewed),
    ("identity sign-in token commands-beside", commands_beside),
    ("identity sign-in token keys-rotated", keys_rotated),
    ("identity sign-in token signed-in-twice", signed_in_twice),
    ("identity sign-in token revoked", token_revoked),
    ("identity sign-in issuer down", issuer_down),
    ("identity sign-in issuer slow", issuer_slow),
    ("identity sign-in lie wrong-iss", lies(iss="https://evil.example.org")),
    ("identity sign-in lie no-iss", lies(iss="")),
    ("identity sign-in lie other-issuer", lies(metadata={"issuer": "https://evil.example.org"})),
    ("identity sign-in lie private-address", lies(metadata={"token_endpoint": ELSEWHERE})),
    ("identity sign-in lie huge-metadata", lies(metadata_bytes=20_000_000)),
    ("identity sign-in lie metadata-elsewhere", lies(metadata_redirect=ELSEWHERE)),
    ("identity sign-in lie metadata-nonsense", lies(metadata_text="<html>")),
    ("identity sign-in lie token-nonsense", lies(token={"status": 200, "text": "<html>"})),
    ("identity sign-in lie token-empty", lies(token={"status": 200, "text": "{}"})),
    ("identity sign-in lie token-error", lies(token={"status": 500, "text": ""})),
    ("identity sign-in serve restarted", restarted),
    ("identity sign-in serve kept-well", kept_well),
    ("identity sign-in logout revoked", logout),
]


def all_ways(results: Results, binary: str, folder: pathlib.Path) -> None:
    run_in_world(results, ROWS, partial(World, binary=binary, folder=folder), folder)
