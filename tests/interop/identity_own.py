"""Each user's own credentials at a server: two users, who sign in by a question with a URL, or send a header of their own."""

import pathlib
import re
import shutil
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

from identity_servers import BROWSER, AuthorizationServer, Protected, Row, Trunkline, run_in_world
from results import Results
from servers import HERE, MODULES, NODE, PYTHON, run

KEYS = {"alice": "a-key-of-alice-for-tests", "bob": "a-key-of-bob-for-tests", "carol": "a-key-of-carol-for-tests"}


class World:
    def __init__(self, stack: ExitStack, binary: str, folder: pathlib.Path) -> None:
        self.folder, self.binary = folder, binary
        self.issuer = stack.enter_context(AuthorizationServer(folder))
        self.issuer.wait_port(self.issuer.port)
        self.servers = {kind: Protected(kind, self.issuer.issuer, folder) for kind in ("python", "typescript")}
        for server in self.servers.values():
            stack.enter_context(server)
        for server in self.servers.values():
            server.wait_port(server.port)
        keys = [{"name": user, "key": key} for user, key in KEYS.items()] + [{"name": "root", "key": "a-key-of-root-tests", "admin": True}]
        own: dict[str, Any] = {"oauth": True, "credentials": "per_user"}
        forwarded = {"url": self.servers["python"].url, "forward_headers": ["authorization"], "credentials": "per_user"}
        servers = {kind: {"url": server.url} | own for kind, server in self.servers.items()} | {"forwarded": forwarded}
        self.gateway = stack.enter_context(Trunkline(binary, {"api_keys": keys, "mcp_servers": servers}, folder / "gateway"))
        scripts = folder / "drivers"
        shutil.copytree(HERE / "drivers/node", scripts)
        (scripts / "node_modules").symlink_to(MODULES)
        self.programs = {"py2": [PYTHON, HERE / "drivers/py/oauth_own.py"], "ts2": [NODE, scripts / "oauth_own.mjs"]}

    def user(self, program: str, user: str, tool: str, *more: str, path: str = "/mcp", browser: str = "") -> str:
        """What a stock client of that user prints."""
        log = self.folder / f"user-{user}-{time.monotonic_ns()}.txt"
        command = [*self.programs[program], self.gateway.base + path, tool, "--key", KEYS[user], *more]
        env = {"RIG_USER": user, "RIG_PERSON": str(BROWSER), "RIG_KEY": KEYS[user], "RIG_BROWSER": browser}
        code = run(command, log, 60, env | {"RIG_BROWSER_LOG": str(self.folder / "browser.txt")})
        said = log.read_text(errors="replace")
        assert code == 0, f"it ended with {code}: {said[-800:]}"
        return said


def signs_in(program: str, user: str, server: str, *more: str) -> Any:
    """The first call asks with a URL and goes on, and the next does not ask."""

    def check(w: World) -> None:
        path = f"/mcp/{server}"
        said = w.user(program, user, "whoami", *more, path=path)
        assert f"says {user} mcp:read" in said, said
        assert said.count("asked url") == 1, said
        said = w.user(program, user, "whoami", *more, path=path)
        assert f"says {user} mcp:read" in said and "asked" not in said, said

    return check


def told_where(w: World) -> None:
    """A client that cannot be asked is told where to go, in the handshake era too."""
    said = w.user("ts2", "carol", "whoami", "--mute", "--era", "legacy", path="/mcp/python")
    assert "error" in said and f"{w.gateway.base}/oauth/sign-in/" in said, said
    answer = w.gateway.call("python-whoami", headers={"Authorization": f"Bearer {KEYS['carol']}"})
    assert answer.status >= 400 and f"{w.gateway.base}/oauth/sign-in/" in answer.text, answer


def cannot_be_asked(w: World) -> None:
    """The same in 2026-07-28, and the client has the tool once that is done."""
    said = w.user("ts2", "carol", "whoami", "--mute", path="/mcp/typescript")
    found = re.search(rf"{re.escape(w.gateway.base)}/oauth/sign-in/[\w-]+", said)
    assert "error" in said and found, said
    env = {"RIG_USER": "carol", "RIG_KEY": KEYS["carol"], "RIG_BROWSER_LOG": str(w.folder / "browser.txt")}
    code = run([BROWSER, found[0]], w.folder / "carol.txt", 30, env)
    assert code == 0, (w.folder / "carol.txt").read_text()
    time.sleep(1)
    said = w.user("ts2", "carol", "whoami", "--mute", path="/mcp/typescript")
    assert "says carol" in said, said


def never_mixed(w: World) -> None:
    """Both users call at once, through one gateway, and each is who they are."""
    wrong: list[str] = []

    def calls(user: str) -> None:
        for _ in range(40):
            answer = w.gateway.call("typescript-whoami", headers={"Authorization": f"Bearer {KEYS[user]}"})
            if answer.status != 200 or f"{user} " not in answer.text:
                wrong.append(f"{user}: {answer}")

    users = [threading.Thread(target=calls, args=[user]) for user in ("alice", "bob") for _ in range(3)]
    for it in users:
        it.start()
    for it in users:
        it.join()
    assert not wrong, f"{len(wrong)} of 240: {wrong[0]}"


def forwarded(w: World) -> None:
    """A header of the user's own, at the server for which it is meant."""
    audience = w.servers["python"].url
    token = w.issuer.token(audience)
    key = {"Authorization": f"Bearer {KEYS['alice']}"}
    own = {"x-mcp-forwarded-authorization": f"Bearer {token}"}
    w.gateway.waits_until_says("forwarded-whoami", "machine mcp:read", key | own)
    answer = w.gateway.call("forwarded-whoami", headers=key)
    assert answer.status >= 400, f"without the header: {answer}"
    answer = w.gateway.call("forwarded-whoami", headers={"Authorization": f"Bearer {KEYS['bob']}"})
    assert answer.status >= 400, f"another user without the header: {answer}"


def of_another(w: World) -> None:
    """Whoever follows the link that another user was given does not attach their own account to that user."""
    bob = {"Authorization": f"Bearer {KEYS['bob']}"}
    answer = w.gateway.call("python-whoami", headers=bob)
    found = re.search(rf"{re.escape(w.gateway.base)}/oauth/sign-in/[\w-]+", answer.text)
    assert found, answer
    env = {"RIG_USER": "mallet", "RIG_KEY": KEYS["carol"], "RIG_BROWSER_LOG": str(w.folder / "browser-of-another.txt")}
    run([BROWSER, found[0]], w.folder / "another.txt", 30, env)
    time.sleep(1)
    answer = w.gateway.call("python-whoami", headers=bob)
    assert answer.status >= 400 and "mallet" not in answer.text, f"bob is now mallet: {answer}"


def restarted(w: World) -> None:
    """Who has signed in has it still after a restart."""
    w.gateway.stop()
    w.gateway.__enter__()
    said = w.user("ts2", "alice", "whoami", path="/mcp/typescript")
    assert "says alice" in said and "asked" not in said, said


ROWS: list[Row] = [
    ("identity per-user ts2-auto alice", signs_in("ts2", "alice", "typescript")),
    ("identity per-user ts2-legacy bob", signs_in("ts2", "bob", "typescript", "--era", "legacy")),
    ("identity per-user py2-auto alice", signs_in("py2", "alice", "python")),
    ("identity per-user link of-another", of_another),
    ("identity per-user py2-legacy bob", signs_in("py2", "bob", "python", "--era", "legacy")),
    ("identity per-user mute legacy-and-rest", told_where),
    ("identity per-user mute modern", cannot_be_asked),
    ("identity per-user rest never-mixed", never_mixed),
    ("identity per-user rest forwarded", forwarded),
    ("identity per-user ts2-auto restarted", restarted),
]


def two_users(results: Results, binary: str, folder: pathlib.Path) -> None:
    run_in_world(results, ROWS, partial(World, binary=binary, folder=folder), folder)
