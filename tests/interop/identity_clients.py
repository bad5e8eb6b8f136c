"""The gateway as resource server: stock clients sign in there with their own OAuth, and tokens of a real authorization
server are taken, refused, and held to what they may."""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import re
import shutil
import sys
import threading
import time
import urllib.parse
from contextlib import ExitStack
from functools import partial
from subprocess import check_output
from typing import Any, Callable

from identity_servers import (
    BROWSER,
    IDENTITY,
    SECONDS,
    Answer,
    AuthorizationServer,
    Protected,
    Row,
    Trunkline,
    ask,
    post,
    run_in_world,
    run_rows,
    until,
)
from results import Results
from servers import CACHE, HERE, LOOPBACK, MODULES, NODE, PYTHON, free_port, run

INSPECTOR = CACHE / "inspector/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
# An issuer's keys are read again for a token at most each five seconds.
KEYS_SECONDS = 6
MCP_REMOTE = IDENTITY / "node_modules/mcp-remote/dist/proxy.js"


class World:
    """A gateway that takes tokens, for alice (ops) and who may read, and one that asks the issuer about each and speaks of
    no scope."""

    def __init__(self, stack: ExitStack, binary: str, folder: pathlib.Path) -> None:
        self.folder = folder
        self.issuer = stack.enter_context(AuthorizationServer(folder))
        self.issuer.wait_port(self.issuer.port)
        port, opaque = free_port(), free_port()
        self.audience, self.opaque = f"http://127.0.0.1:{port}/mcp", f"http://127.0.0.1:{opaque}/mcp"
        self.issuer.tell(opaque=[self.opaque])
        # Its opaque tokens of OAuth clients have no "sub".
        asked = {
            "introspection": {"client_id": "introspector", "client_secret": "the-secret-of-introspector"},
            "machine_clients": ["machine"],
        }
        readers = {"claim": "scope", "any": ["mcp:read"]}
        config = self.config(self.audience, readers)
        self.gateway = stack.enter_context(Trunkline(binary, config, folder / "gateway", port=port))
        config = self.config(self.opaque, {"claim": "groups", "any": ["dev", "machines"]}, asked)
        self.asking = stack.enter_context(Trunkline(binary, config, folder / "asking", port=opaque))
        # Node looks for packages beside the importing file, so the script is put beside a link to them.
        scripts = folder / "drivers"
        shutil.copytree(HERE / "drivers/node", scripts)
        (scripts / "node_modules").symlink_to(MODULES)
        self.script = scripts / "oauth_user.mjs"

    def config(self, audience: str, who: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
        rules = [
            {"claim": "groups", "any": ["ops"], "servers": ["*"], "tools": ["*"], "admin": True},
            who | {"servers": ["demo"], "tools": ["demo-time", "demo-echo"]},
        ]
        issuer = {"issuer": self.issuer.issuer, "audience": audience} | (more or {})
        return {
            "oauth": {"issuers": [issuer], "rules": rules},
            "api_keys": [{"name": "laptop", "key": "a-key-beside-the-tokens"}],
            "mcp_servers": {"demo": {"command": "trunkline", "args": ["demo"], "required": True}},
        }

    def token(self, user: str, audience: str, scope: str = "mcp:read") -> str:
        """That user's access token, by the code flow."""
        verifier = "v" * 64
        challenge = base64url(hashlib.sha256(verifier.encode()).digest())
        back = "http://127.0.0.1:3030/callback"
        asked = {
            "response_type": "code", "client_id": "known", "redirect_uri": back, "state": "s", "scope": scope,
            "resource": audience, "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        env = os.environ | {"RIG_USER": user, "RIG_BROWSER": "print"}
        page = f"{self.issuer.issuer}/auth?{urllib.parse.urlencode(asked)}"
        ended = check_output([sys.executable, BROWSER, page], text=True, env=env, timeout=SECONDS)
        code = urllib.parse.parse_qs(urllib.parse.urlparse(ended.strip()).query)["code"][0]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier}
        return post(f"{self.issuer.issuer}/token", form | {"resource": audience}, "known", "the-secret-of-known")["access_token"]


def base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def encoded(part: Any) -> str:
    """A part of a JWT."""
    return base64url(json.dumps(part).encode())


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def stock_client(
    command: Callable[[World], list[Any]], path: str = "/mcp", gateway: str = "gateway"
) -> Callable[[World], None]:
    """A check that a stock client signs in with its own OAuth and is answered by a tool."""

    def check(w: World) -> None:
        log = w.folder / f"client-{time.monotonic_ns()}.txt"
        words = [getattr(w, gateway).base + path if it == "URL" else it for it in command(w)]
        env = {"RIG_USER": "bob", "RIG_PERSON": str(BROWSER), "BROWSER": str(BROWSER), "HOME": str(w.folder / "home")}
        env |= {"MCP_REMOTE_CONFIG_DIR": str(w.folder / "home"), "PATH": f"{CACHE / 'bin'}:{os.environ['PATH']}"} | LOOPBACK
        # The Inspector opens a browser only for who sits at a terminal, or has said so.
        env |= {"MCP_AUTO_OPEN_ENABLED": "true"}
        (w.folder / "home").mkdir(exist_ok=True)
        w.issuer.exchanges()
        code = run(words, log, 60, env)
        said = log.read_text(errors="replace")
        assert code == 0 and re.search(r"\d{4}-\d\d-\d\dT\S+Z", said), f"it ended with {code}: {said[-900:]}"
        assert [it for it in w.issuer.exchanges() if it["path"] == "/token"], "it has asked for no token"

    return check


def py(version: str, *more: str) -> Callable[[World], list[Any]]:
    python = CACHE / f"venv-{version}/bin/python" if version else PYTHON
    return lambda w: [python, HERE / "drivers/py/oauth_user.py", "URL", "time", *more]


def ts(*more: str) -> Callable[[World], list[Any]]:
    return lambda w: [NODE, w.script, "URL", "time", *more]


def mcp_remote(w: World) -> list[Any]:
    """The stock Python client of a host starts it, and it signs in."""
    script = HERE / "drivers/py/oauth_stdio.py"
    return [PYTHON, script, "time", NODE, MCP_REMOTE, "URL", "--allow-http", "--transport", "http-only"]


def inspector(w: World) -> list[Any]:
    back = f"http://127.0.0.1:{free_port()}/oauth/callback"
    words = ["--transport", "http", "--method", "tools/call", "--tool-name", "time", "--callback-url", back]
    return [NODE, INSPECTOR, "--cli", "URL", *words]


def call(w: World, token: str, name: str = "time", gateway: Trunkline | None = None, scheme: str = "Bearer") -> Answer:
    return (gateway or w.gateway).call(name, {"message": "m"} if name == "echo" else {}, {"Authorization": f"{scheme} {token}"})


def refused(w: World, token: str, gateway: Trunkline | None = None, scheme: str = "Bearer") -> None:
    answer = call(w, token, gateway=gateway, scheme=scheme)
    assert answer.status == 401, f"it is let in: {answer}"
    challenge = answer.headers.get("www-authenticate", "")
    assert re.search('error="invalid_(token|dpop_proof)"', challenge), f"the challenge is {challenge}"


def challenge(w: World) -> None:
    """Who has no token is told where to get one, and so at each endpoint."""
    for path in ("/mcp", "/mcp/sse", "/sse", "/mcp/demo", "/demo/mcp", "/mcp/tools/list"):
        answer = ask(w.gateway.base + path)
        head = answer.headers.get("www-authenticate", "")
        assert answer.status == 401 and "resource_metadata=" in head, f"{path}: {answer.status} {head}"
        document = ask(head.split('resource_metadata="')[1].split('"')[0]).json
        assert document["authorization_servers"] == [w.issuer.issuer], document
        assert document["resource"].startswith(w.gateway.base), document
    root = ask(f"{w.gateway.base}/.well-known/oauth-protected-resource")
    assert root.status == 200 and root.headers.get("access-control-allow-origin"), f"{root} {root.headers}"


def rest_token(w: World) -> None:
    answer = call(w, w.issuer.token(w.audience))
    assert answer.status == 200 and not answer.json.get("isError"), answer


def key_beside(w: World) -> None:
    answer = w.gateway.call("time", headers=bearer("a-key-beside-the-tokens"))
    assert answer.status == 200, answer


def algorithms(w: World) -> None:
    for name in ("RS256", "ES256"):
        w.issuer.tell(algorithm=name)
        answer = call(w, w.issuer.token(w.audience))
        assert answer.status == 200, f"{name}: {answer}"
    w.issuer.tell(algorithm=None)


def introspected(w: World) -> None:
    token = w.issuer.token(w.opaque)
    assert "." not in token, "the token is not opaque"
    w.issuer.exchanges()
    for _ in range(5):
        answer = call(w, token, gateway=w.asking)
        assert answer.status == 200, answer
    asked = [it for it in w.issuer.exchanges() if it["path"] == "/token/introspection"]
    assert 1 <= len(asked) <= 2, f"it was asked for {len(asked)} times"
    refused(w, "an-opaque-token-of-nobody", w.asking)


def wrong_tokens(w: World) -> None:
    good = w.issuer.token(w.audience)
    head, body, signature = good.split(".")
    claims = json.loads(decoded(body))
    refused(w, f"{head}.{body}.{'A' * len(signature)}")
    refused(w, f"{head}.{encoded(claims | {'sub': 'alice', 'groups': ['ops']})}.{signature}")
    refused(w, f"{encoded({'alg': 'none', 'typ': 'at+jwt'})}.{body}.")
    # Signed with the public key, as if that were a secret.
    keys = ask(f"{w.issuer.issuer}/jwks").text.encode()
    shared = encoded({"alg": "HS256", "typ": "at+jwt", "kid": json.loads(decoded(head))["kid"]})
    refused(w, f"{shared}.{body}.{base64url(hmac.digest(keys, f'{shared}.{body}'.encode(), 'sha256'))}")
    refused(w, "not.a.token")
    refused(w, w.issuer.token("http://127.0.0.1:9/mcp"))  # meant for another
    assert call(w, good).status == 200, "the good one is not taken any more"


def claims(w: World) -> None:
    """Well signed by the issuer, but over, not yet good, of another issuer, or no access token. Clocks may differ by thirty
    seconds."""
    now = int(time.time())

    def token(said: dict[str, Any] | None = None, header: dict[str, Any] | None = None) -> str:
        w.issuer.tell(claims=said, header=header)
        try:
            return w.issuer.token(w.audience)
        finally:
            w.issuer.tell(claims=None, header=None)

    refused(w, token({"exp": now - 40}))
    refused(w, token({"nbf": now + 60}))
    refused(w, token({"iss": "https://evil.example.org"}))
    refused(w, token({"aud": ["http://127.0.0.1:9/mcp"]}))
    refused(w, token(header={"typ": "logout+jwt"}))
    for said in ({"exp": now - 10}, {"nbf": now + 10}, {"aud": ["http://127.0.0.1:9/mcp", w.audience]}):
        answer = call(w, token(said))
        assert answer.status == 200, f"{said}: {answer}"


def rights(w: World) -> None:
    alice, bob = w.token("alice", w.audience), w.token("bob", w.audience)
    assert call(w, alice, "add").status == 200 or "argument" in call(w, alice, "add").text
    assert call(w, bob, "time").status == 200
    answer = call(w, bob, "slow")
    assert answer.status == 404, f"bob may call what no rule gives him: {answer}"
    tools = ask(f"{w.gateway.base}/mcp/tools/list", headers=bearer(bob)).json["tools"]
    assert sorted(it["name"].removeprefix("demo-") for it in tools) == ["echo", "time"], tools
    carol = call(w, w.token("carol", w.audience, "mcp:write"))
    head = carol.headers.get("www-authenticate", "")
    assert carol.status == 403, f"carol, of whom no rule speaks: {carol}"
    assert "insufficient_scope" in head and "mcp:read" in head, head
    carol = call(w, w.token("carol", w.opaque), gateway=w.asking)
    assert carol.status == 403, f"carol, whom no scope would help: {carol}"


def keys_rotated(w: World) -> None:
    old = w.issuer.token(w.audience)
    answer = call(w, old)
    assert answer.status == 200, answer
    # Forged tokens have had the keys read just now, and once more behind that.
    time.sleep(2 * KEYS_SECONDS)
    w.issuer.admin("rotate", {"keep": True})
    began = time.monotonic()
    new = call(w, w.issuer.token(w.audience))
    assert new.status == 200, f"signed with a new key: {new}"
    assert time.monotonic() - began < 10
    assert call(w, old).status == 200, "the old key is still published"


def keys_unknown(w: World) -> None:
    """Tokens with keys that are unknown to the issuer too, twenty at once, make it few requests and take few seconds."""
    good = w.issuer.token(w.audience)
    until("its key is known", lambda: call(w, good).status == 200, KEYS_SECONDS)
    _, body, signature = good.split(".")
    w.issuer.exchanges()
    began, failed = time.monotonic(), []

    def forge(number: int) -> None:
        try:
            refused(w, f"{encoded({'alg': 'RS256', 'typ': 'at+jwt', 'kid': f'k{number}'})}.{body}.{signature}")
        except AssertionError as e:
            failed.append(str(e))

    users = [threading.Thread(target=forge, args=[number]) for number in range(20)]
    for it in users:
        it.start()
    assert call(w, good).status == 200
    took_meanwhile = time.monotonic() - began
    for it in users:
        it.join()
    assert not failed, failed[0]
    asked = [it for it in w.issuer.exchanges() if it["path"] == "/jwks"]
    assert len(asked) <= 3, f"twenty unknown keys made {len(asked)} requests"
    assert took_meanwhile < 2, f"a good token took {took_meanwhile:.1f} s meanwhile"
    assert time.monotonic() - began < 15, f"it took {time.monotonic() - began:.1f} s"
    w.issuer.admin("rotate", {"keep": True})
    new = w.issuer.token(w.audience)
    until("a new key is taken behind them", lambda: call(w, new).status == 200, KEYS_SECONDS)


def issuer_down(w: World) -> None:
    token = w.issuer.token(w.audience)
    opaque = w.issuer.token(w.opaque)
    assert call(w, token).status == 200
    fresh = w.issuer.token(w.audience)
    w.issuer.tell(down=True)
    try:
        assert call(w, token).status == 200, "a token that is known is refused"
        assert call(w, fresh).status == 200, "a token whose key is known is refused"
        began = time.monotonic()
        answer = call(w, opaque, gateway=w.asking)
        assert answer.status in (401, 503) and time.monotonic() - began < 20, answer
    finally:
        w.issuer.tell(down=None)
    until("it is asked again", lambda: call(w, opaque, gateway=w.asking).status == 200)


def unproven(w: World) -> None:
    """A token that is bound to a key is no use as a bearer token."""
    log = w.folder / "dpop.txt"
    env = {"RIG_USER": "bob", "RIG_PERSON": str(BROWSER)}
    code = run([NODE, w.script, f"{w.gateway.base}/mcp", "time", "--dpop", "--show-token"], log, 60, env)
    assert code == 0, log.read_text()[-600:]
    token = next(line.split()[1] for line in log.read_text().splitlines() if line.startswith("token "))
    refused(w, token)
    refused(w, token, scheme="DPoP")


def dpop_nonce(w: World) -> None:
    """The authorization server wants its nonce in proofs; the gateway need not."""
    w.issuer.tell(dpop_nonce=True)
    try:
        stock_client(ts("--dpop"))(w)
    finally:
        w.issuer.tell(dpop_nonce=None)


CLIENTS = {
    "py2-auto": stock_client(py("")),
    "py2-legacy": stock_client(py("", "--era", "legacy")),
    "py2-sse": stock_client(py("", "--era", "legacy", "--transport", "sse"), "/mcp/sse"),
    "py1.30": stock_client(py("1.30.0")),
    "py1.30-sse": stock_client(py("1.30.0", "--transport", "sse"), "/mcp/sse"),
    "py1.20": stock_client(py("1.20.0")),
    "ts2-auto": stock_client(ts()),
    "ts2-legacy": stock_client(ts("--era", "legacy")),
    "ts2-sse": stock_client(ts("--era", "legacy", "--transport", "sse"), "/mcp/sse"),
    "ts2-dpop": stock_client(ts("--dpop")),
    "ts2-dpop-nonce": dpop_nonce,
    "ts2-one-server": stock_client(ts(), "/mcp/demo"),
    "ts2-no-scope": stock_client(ts(), gateway="asking"),
    "mcp-remote": stock_client(mcp_remote),
    "inspector": stock_client(inspector),
}
TOKENS = {
    "challenge": challenge,
    "rest": rest_token,
    "key-beside": key_beside,
    "algorithms": algorithms,
    "introspected": introspected,
    "wrong": wrong_tokens,
    "claims": claims,
    "rights": rights,
    "unproven": unproven,
    "keys-rotated": keys_rotated,
    "keys-unknown": keys_unknown,
    "issuer-down": issuer_down,
}
ROWS: list[Row] = [(f"identity client {name} sign-in", check) for name, check in CLIENTS.items()]
ROWS += [(f"identity client token {name}", check) for name, check in TOKENS.items()]


def all_clients(results: Results, binary: str, folder: pathlib.Path) -> None:
    run_in_world(results, ROWS, partial(World, binary=binary, folder=folder), folder)


# Without a gateway: each client at each server.
DIRECT_CLIENTS = {
    "py2-auto": [PYTHON, "PY"],
    "py2-legacy": [PYTHON, "PY", "--era", "legacy"],
    "py1.30": [CACHE / "venv-1.30.0/bin/python", "PY"],
    "py1.20": [CACHE / "venv-1.20.0/bin/python", "PY"],
    "ts2-auto": [NODE, "TS"],
    "ts2-legacy": [NODE, "TS", "--era", "legacy"],
}


def direct(results: Results, folder: pathlib.Path) -> None:
    """Proves the servers and the clients."""
    kinds = ("python", "introspecting", "typescript")
    clients = [(f"direct sign-in {client} {kind}", client, kind) for client in DIRECT_CLIENTS for kind in kinds]
    step = "direct sign-in ts2-auto typescript-step-up"
    if not any(results.wants(name) for name in (*(name for name, *_ in clients), step)):
        return
    folder.mkdir()
    scripts = folder / "drivers"
    shutil.copytree(HERE / "drivers/node", scripts)
    (scripts / "node_modules").symlink_to(MODULES)
    places: dict[Any, Any] = {"PY": HERE / "drivers/py/oauth_user.py", "TS": scripts / "oauth_user.mjs"}
    with ExitStack() as stack:
        issuer = stack.enter_context(AuthorizationServer(folder))
        issuer.wait_port(issuer.port)
        servers = {kind: stack.enter_context(Protected(kind, issuer.issuer, folder)) for kind in kinds}
        for server in servers.values():
            server.wait_port(server.port)
        issuer.tell(opaque=[servers["introspecting"].url])

        def says(client: str, kind: str, tool: str, *more: str) -> str:
            program, script, *words = DIRECT_CLIENTS[client]
            log = folder / f"{client}-{kind}-{tool}.txt"
            command = [program, places[script], servers[kind].url, tool, *words, *more]
            code = run(command, log, 60, {"RIG_USER": "bob", "RIG_PERSON": str(BROWSER)})
            said = log.read_text(errors="replace")
            assert code == 0, f"it ended with {code}: {said[-800:]}"
            return said

        def reads(client: str, kind: str) -> None:
            assert "bob mcp:read" in (said := says(client, kind, "whoami")), said

        def writes() -> None:
            assert "bob mcp:read mcp:write" in (said := says("ts2-auto", "typescript", "write", "--known")), said

        rows: list[Row] = [(name, partial(reads, client, kind)) for name, client, kind in clients]
        run_rows(results, [*rows, (step, writes)])
