#!/usr/bin/env python3
"""A user of the Python SDK, 1.x or 2.x, who signs in with the SDK's own OAuth and calls a tool:

    oauth_user.py URL TOOL [--era auto|legacy] [--transport http|sse]

The user is $RIG_USER, and browser.py their browser. Prints what the tool says.
"""

import argparse
import asyncio
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlparse

from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientMetadata

BROWSER = Path(__file__).resolve().parents[2] / "client/browser.py"
CALLBACK = "http://127.0.0.1:3030/callback"  # nobody listens there

p = argparse.ArgumentParser()
p.add_argument("url")
p.add_argument("tool")
p.add_argument("--era", default="auto")
p.add_argument("--transport", default="http")
a = p.parse_args()


class Memory:
    def __init__(self) -> None:
        self.tokens = self.client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


answer: dict[str, str] = {}


async def browser(address: str) -> None:
    command = [sys.executable, str(BROWSER), address]
    back = await asyncio.to_thread(subprocess.check_output, command, text=True, env=os.environ | {"RIG_BROWSER": "print"})
    answer.update({name: values[0] for name, values in parse_qs(urlparse(back.strip()).query).items()})
    print("signed in with the scopes:", parse_qs(urlparse(address).query).get("scope"), file=sys.stderr)


async def callback():
    try:
        from mcp.shared.auth import AuthorizationCodeResult
    except ImportError:
        return answer["code"], answer.get("state")
    return AuthorizationCodeResult(code=answer["code"], state=answer.get("state"), iss=answer.get("iss"))


metadata = OAuthClientMetadata(
    client_name="interop",
    redirect_uris=[CALLBACK],
    grant_types=["authorization_code", "refresh_token"],
    response_types=["code"],
    token_endpoint_auth_method="none",
)
provider = OAuthClientProvider(a.url, metadata, Memory(), browser, callback)


async def of_1() -> str:
    from mcp import ClientSession

    if a.transport == "sse":
        from mcp.client.sse import sse_client as client
    else:
        from mcp.client.streamable_http import streamablehttp_client as client
    async with client(a.url, auth=provider) as (read, write, *_), ClientSession(read, write) as session:
        await session.initialize()
        names = [tool.name for tool in (await session.list_tools()).tools]
        assert a.tool in names, names
        result = await session.call_tool(a.tool, {})
        assert not result.isError, result
        return result.content[0].text


async def of_2() -> str:
    import httpx2
    from mcp.client.client import Client
    from mcp.client.sse import sse_client
    from mcp.client.streamable_http import streamable_http_client

    if a.transport == "sse":
        target = sse_client(a.url, auth=provider)
    else:
        target = streamable_http_client(a.url, http_client=httpx2.AsyncClient(auth=provider, timeout=30))
    async with Client(target, mode=a.era) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert a.tool in names, names
        result = await client.call_tool(a.tool, {})
        assert not result.is_error, result
        return result.content[0].text


try:
    import mcp.client.client  # noqa: F401

    run = of_2
except ModuleNotFoundError:
    run = of_1
print(asyncio.run(run()))
