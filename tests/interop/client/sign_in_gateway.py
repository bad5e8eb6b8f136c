#!/usr/bin/env python3
"""Puts the gateway before the conformance suite's server and authorization server, and calls a tool: sign_in_gateway.py URL

Run by the suite as the client under test: the gateway is what signs in, with what `oauth_of` configures. RIG_GATEWAY is
its binary, RIG_FOLDER where its configuration and logs go.
"""

import json
import os
import pathlib
import signal
import sys
import time
import urllib.error
import urllib.request
from typing import Any

here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent))
import servers  # noqa: E402  (they are beside this file's folder)
from matrix import AUTH_REFUSED  # noqa: E402

SCENARIO = os.environ["MCP_CONFORMANCE_SCENARIO"].removeprefix("auth/")
CONTEXT: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
FOLDER = pathlib.Path(os.environ["RIG_FOLDER"])
# The suite knows it as the name of a client; nobody fetches it.
DOCUMENT = "https://conformance-test.local/client-metadata.json"

# A sign-in takes well under a second on an idle machine.
SECONDS = 20
# How long a gateway that was refused is watched for what it must not do, such as signing in again and again.
WATCHED_SECONDS = 2


def oauth_of(scenario: str, context: dict[str, Any]) -> Any:
    """What the scenario wants configured as the server's `oauth`."""
    given = {key: context[key] for key in ("client_id", "client_secret") if key in context}

    def file(name: str, text: str) -> str:
        path = FOLDER / name
        path.touch(0o600)
        path.write_text(text)
        return str(path)

    match scenario:
        case "basic-cimd":
            return {"client_metadata_url": DOCUMENT}
        case "pre-registration":
            return given
        case "client-credentials-basic":
            return {"grant": "client_credentials", **given}
        case "client-credentials-jwt":
            return {"grant": "client_credentials", **given, "private_key_file": file("key.pem", context["private_key_pem"])}
        case "wif-jwt-bearer":
            return {"grant": "jwt_bearer", **given, "assertion_file": file("assertion", context["valid_jwt"])}
        case "enterprise-managed-authorization":
            provider = {"token_endpoint": context["idp_token_endpoint"], "client_id": context["idp_client_id"]}
            token = file("id_token", context["idp_id_token"])
            return {"grant": "jwt_bearer", **given, "assertion_file": token, "identity_provider": provider}
        case "dpop" | "dpop-nonce":
            return {"dpop": True}
        case _:
            return True


def ask(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        return e.code, json.loads(e.read() or b"null")


def call(port: int) -> tuple[int, Any]:
    return ask(port, "/mcp/tools/call", {"name": "test-tool", "server": "fixture"})


def signed_in(port: int) -> str | None:
    """Why the tool could not be listed and called, or None."""
    until = time.monotonic() + SECONDS
    tools: list[str] = []
    while "test-tool" not in tools:
        if time.monotonic() > until:
            return f"the tool is not listed: {ask(port, '/status')[1]['upstreams']}"
        tools = [tool["name"] for tool in ask(port, "/mcp/tools/list")[1]["tools"]]
        time.sleep(0.1)
    status, result = call(port)
    return None if status == 200 and result["content"][0].get("text") == "test" else f"{status} {result}"


def refused(port: int) -> str | None:
    """Why the gateway did not say that it could not sign in, or None."""
    until = time.monotonic() + WATCHED_SECONDS
    status, result = call(port)
    while time.monotonic() < until:
        time.sleep(0.2)
        status, result = call(port)
        ask(port, "/mcp/tools/list")
    print(status, result)
    return None if status >= 400 or result.get("isError") else f"the tool answered: {result}"


def main() -> str | None:
    # Told to end, it stops the gateway first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    FOLDER.mkdir(parents=True, exist_ok=True)
    server = {"url": sys.argv[-1], "transport": "http", "required": False, "oauth": oauth_of(SCENARIO, CONTEXT)}
    env = {"BROWSER": str(here / "browser.sh"), "RIG_BROWSER_LOG": str(FOLDER / "browser.txt")}
    gateway = servers.Gateway(
        os.environ["RIG_GATEWAY"], server, False, FOLDER, env, state_dir=str(FOLDER / "state"), first_list_ms=500
    )
    with gateway:
        gateway.wait_port(gateway.port)
        why = refused(gateway.port) if SCENARIO in AUTH_REFUSED else signed_in(gateway.port)
    return why


sys.exit(main())
