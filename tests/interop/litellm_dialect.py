"""LiteLLM's REST dialect, held against a real LiteLLM, answer by answer: both stand before the same servers, the
gateway with what `trunkline import` makes of LiteLLM's own configuration."""

import json
import pathlib
import subprocess
import urllib.error
import urllib.request
from typing import Any, Callable, NamedTuple

from results import Results
from servers import CACHE, NotReady, Server, free_port, get_status

KEY = "sk-of-the-interoperability-run"
ENV = {"RIG_LITELLM_KEY": KEY}
# It asks nobody outside for prices, and takes its time to start.
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "DISABLE_SCHEMA_UPDATE": "true"}
START_SECONDS = 120
ANSWER_SECONDS = 30

LIST, CALL = "/mcp-rest/tools/list", "/mcp-rest/tools/call"
ECHO = {"message": "héllo"}


class Answer(NamedTuple):
    status: int
    body: Any


Compare = Callable[[Answer, Answer], str | None]


def same(ours: Answer, theirs: Answer) -> str | None:
    """The same status and the same body."""
    if ours.status != theirs.status:
        return f"{short(ours)} is not LiteLLM's {short(theirs)}"
    return difference("", ours.body, theirs.body)


def difference(at: str, ours: Any, theirs: Any) -> str | None:
    """The first place where two bodies differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = (difference(f"{at}/{key}", ours.get(key), theirs.get(key)) for key in ours | theirs)
        return next(filter(None, found), None)
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        found = (difference(f"{at}/{n}", *both) for n, both in enumerate(zip(ours, theirs)))
        return next(filter(None, found), None)
    return None if ours == theirs else f"{at}: {str(ours)[:300]} is not LiteLLM's {str(theirs)[:300]}"


def same_word(ours: Answer, theirs: Answer) -> str | None:
    """The same status, shape and word for the error; the sentences are each one's own."""
    words = [(answer.status, detail(answer).get("error")) for answer in (ours, theirs)]
    shaped = isinstance(detail(ours).get("message"), str)
    return None if shaped and words[0] == words[1] else f"{short(ours)} is not LiteLLM's {short(theirs)}"


def otherwise(our_status: int, their_status: int) -> Compare:
    """Where the gateway says more, which docs/litellm.md tells: what each of them says."""

    def compare(ours: Answer, theirs: Answer) -> str | None:
        found, wanted = (ours.status, theirs.status), (our_status, their_status)
        return None if found == wanted else f"{found} is not {wanted}: {short(ours)}, LiteLLM {short(theirs)}"

    return compare


# What is asked, and how the answers compare.
CHECKS: dict[str, tuple[str, Any, Compare]] = {
    "list-all": (LIST, None, same),
    "list-by-id": (f"{LIST}?server_id=alpha", None, same),
    "list-by-name": (f"{LIST}?mcp_server_name=beta", None, same),
    "list-by-alias": (f"{LIST}?mcp_server_name=second", None, same),
    "list-empty-id": (f"{LIST}?server_id=", None, same),
    "list-of-one-that-is-down": (f"{LIST}?server_id=dead", None, same_word),
    "list-unknown-server": (f"{LIST}?server_id=nobody", None, otherwise(404, 403)),
    "call-bare-name": (CALL, {"server_id": "alpha", "name": "echo", "arguments": ECHO}, same),
    "call-by-alias": (CALL, {"server_id": "second", "name": "echo", "arguments": ECHO}, same),
    "call-prefixed-name": (CALL, {"server_id": "beta", "name": "second-echo", "arguments": ECHO}, same),
    "call-structured": (CALL, {"server_id": "alpha", "name": "add", "arguments": {"a": 1, "b": 2}}, same),
    "call-tool-error": (CALL, {"server_id": "alpha", "name": "fail", "arguments": {"message": "no"}}, same),
    "call-null-arguments": (CALL, {"server_id": "beta", "name": "fail", "arguments": None}, otherwise(400, 200)),
    "call-without-name": (CALL, {"server_id": "alpha"}, same_word),
    "call-unknown-server": (CALL, {"server_id": "nobody", "name": "echo", "arguments": {}}, same_word),
    "call-unknown-tool": (CALL, {"server_id": "alpha", "name": "nothing", "arguments": {}}, otherwise(404, 500)),
    "call-others-tool": (CALL, {"server_id": "alpha", "name": "second-echo", "arguments": ECHO}, otherwise(404, 403)),
    "call-wrong-arguments": (CALL, {"server_id": "alpha", "name": "add", "arguments": {"a": 1}}, otherwise(400, 200)),
    "call-without-server": (CALL, {"name": "alpha-echo", "arguments": ECHO}, otherwise(200, 400)),
    "call-with-labels": (CALL, {"server_id": "alpha", "name": "echo", "arguments": ECHO, "metadata": {"a": "b"}}, same),
    "call-unknown-member": (CALL, {"server_id": "alpha", "name": "echo", "args": ECHO}, otherwise(400, 200)),
}


def all_answers(results: Results, binary: str, folder: pathlib.Path) -> None:
    if not any(results.wants(name(check)) for check in CHECKS):
        return
    folder.mkdir()
    demo, theirs, ours = free_port(), free_port(), free_port()
    source = folder / "litellm.yaml"
    source.write_text(yaml(demo, free_port()))
    litellm = [CACHE / "venv-litellm/bin/litellm", "--config", source, "--host", "127.0.0.1", "--port", theirs]
    litellm += ["--telemetry", "False"]
    serve = [binary, "serve", "--config", folder / "config.json", "--listen", f"127.0.0.1:{ours}"]
    try:
        imported(binary, source, folder)
        with Server("demo", [binary, "demo", "--http", f"127.0.0.1:{demo}"], folder / "demo.log") as upstream:
            upstream.wait_port(demo)
            with Server("LiteLLM", litellm, folder / "litellm.log", ENV | OFFLINE) as other:
                with Server("gateway", serve, folder / "gateway.log", ENV) as gateway:
                    gateway.wait_for("ready", lambda: get_status(f"http://127.0.0.1:{ours}/readyz") == 200)
                    health = f"http://127.0.0.1:{theirs}/health/liveliness"
                    other.wait_for("ready", lambda: get_status(health) == 200, START_SECONDS)
                    compare_all(results, f"http://127.0.0.1:{ours}", f"http://127.0.0.1:{theirs}")
    except (NotReady, subprocess.SubprocessError) as e:
        results.complete = False
        results.add("litellm gateway - start", str(e))


def name(check: str) -> str:
    return f"litellm rest - {check}"


def yaml(demo: int, closed: int) -> str:
    """Two servers that are there, and one that is not."""
    return f"""
general_settings:
  master_key: os.environ/RIG_LITELLM_KEY
mcp_servers:
  alpha:
    url: "http://127.0.0.1:{demo}/mcp"
    description: "The first server"
  beta:
    url: "http://127.0.0.1:{demo}/mcp"
    transport: "http"
    alias: second
  dead:
    url: "http://127.0.0.1:{closed}/mcp"
    transport: "http"
"""


def imported(binary: str, source: pathlib.Path, folder: pathlib.Path) -> None:
    with open(folder / "config.json", "w") as out, open(folder / "import.log", "w") as log:
        subprocess.run([binary, "import", source], check=True, stdout=out, stderr=log, timeout=ANSWER_SECONDS)


def compare_all(results: Results, ours: str, theirs: str) -> None:
    ids: dict[str, str] = {}
    for tool in ask(theirs + LIST, None).body["tools"]:
        ids[tool["mcp_info"]["server_id"]] = tool["mcp_info"]["server_name"]
    for check, (path, body, compare) in CHECKS.items():
        if results.wants(name(check)):
            answers = [plain(ask(base + path, body), ids) for base in (ours, theirs)]
            results.add(name(check), compare(*answers))


def ask(url: str, body: Any) -> Answer:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=ANSWER_SECONDS) as answer:
            return Answer(answer.status, json.load(answer))
    except urllib.error.HTTPError as e:
        text = e.read().decode(errors="replace")
        try:
            return Answer(e.code, json.loads(text))
        except ValueError:
            return Answer(e.code, text)


def plain(answer: Answer, ids: dict[str, str]) -> Answer:
    """Without what says nothing: null members, the word for a result that is whole, the order of servers. A server's
    id is its name."""

    def of(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {key: of(it) for key, it in value.items() if it is not None}
            return {key: ids.get(it, it) if key == "server_id" else it for key, it in kept.items()}
        return [of(it) for it in value] if isinstance(value, list) else value

    body = of(answer.body)
    if isinstance(body, dict):
        body.pop("resultType", None)
        # A result that is no error may say so or not.
        if body.get("isError") is False:
            del body["isError"]
        tools = body.get("tools")
        if isinstance(tools, list):
            tools.sort(key=lambda tool: (tool["mcp_info"]["server_name"], tool["name"]))
    return Answer(answer.status, body)


def detail(answer: Answer) -> dict[str, Any]:
    found = answer.body.get("detail") if isinstance(answer.body, dict) else None
    return found if isinstance(found, dict) else {}


def short(answer: Answer) -> str:
    return f"{answer.status} {json.dumps(answer.body, ensure_ascii=False)}"[:700]
