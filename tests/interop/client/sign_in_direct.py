#!/usr/bin/env python3
"""The client of the conformance suite's auth scenarios without a gateway, on the stock Python SDK: sign_in_direct.py URL

Proves the scripts, and is what the gateway is compared with.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from matrix import AUTH_REFUSED  # noqa: E402  (it is beside this file's folder)

SCENARIO = os.environ["MCP_CONFORMANCE_SCENARIO"].removeprefix("auth/")
MODERN = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"] >= "2026"
CONTEXT: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
# Nobody listens there: the redirect is read, not followed.
CALLBACK = "http://localhost:3030/callback"
# The suite knows it as the name of a client; nobody fetches it.
DOCUMENT = "https://conformance-test.local/client-metadata.json"


class Memory:
    """Tokens and registration of one run."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.client: Any = None

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return self.client

    async def set_client_info(self, client: Any) -> None:
        self.client = client


def with_browser(url: str) -> OAuthClientProvider:
    answer: dict[str, str] = {}

    async def browser(address: str) -> None:
        async with httpx2.AsyncClient() as http:
            response = await http.get(address)
        answer.clear()
        answer.update({name: values[0] for name, values in parse_qs(urlparse(response.headers["location"]).query).items()})

    async def callback() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(code=answer["code"], state=answer.get("state"), iss=answer.get("iss"))

    memory = Memory()
    if "client_id" in CONTEXT:
        memory.client = OAuthClientInformationFull(
            client_id=CONTEXT["client_id"],
            client_secret=CONTEXT["client_secret"],
            redirect_uris=[CALLBACK],
            token_endpoint_auth_method="client_secret_basic",
        )
    asked = OAuthClientMetadata(
        client_name="interop",
        redirect_uris=[CALLBACK],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
    )
    return OAuthClientProvider(url, asked, memory, browser, callback, client_metadata_url=DOCUMENT)


def provider(url: str) -> OAuthClientProvider:
    if SCENARIO == "client-credentials-basic":
        return ClientCredentialsOAuthProvider(url, Memory(), CONTEXT["client_id"], CONTEXT["client_secret"])
    if SCENARIO == "client-credentials-jwt":
        client_id = CONTEXT["client_id"]
        signed = SignedJWTParameters(
            issuer=client_id,
            subject=client_id,
            signing_key=CONTEXT["private_key_pem"],
            signing_algorithm=CONTEXT["signing_algorithm"],
        )
        return PrivateKeyJWTOAuthProvider(url, Memory(), client_id, signed.create_assertion_provider())
    return with_browser(url)


async def main() -> None:
    url = sys.argv[-1]
    http = httpx2.AsyncClient(auth=provider(url), timeout=20)
    async with Client(streamable_http_client(url, http_client=http), mode="auto" if MODERN else "legacy") as client:
        for tool in (await client.list_tools()).tools:
            print(await client.call_tool(tool.name, {}))


try:
    asyncio.run(main())
except Exception as e:
    if SCENARIO not in AUTH_REFUSED:
        raise
    print("refused:", repr(e))
else:
    if SCENARIO in AUTH_REFUSED:
        sys.exit("a tool was called")
