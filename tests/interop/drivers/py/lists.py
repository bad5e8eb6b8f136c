#!/usr/bin/env python3
"""A user of the Python SDK 2.x, who can be asked everything, prints the names of all that is listed.

    lists.py URL [--era auto|legacy|2026-07-28] [--transport http|sse]
"""

import argparse
import asyncio
import json
from typing import Any

import mcp_types as t
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

# The server registers some tools a moment after its client is initialized.
SETTLED_SECONDS = 2


async def sampled(ctx: Any, params: Any) -> t.CreateMessageResult:
    return t.CreateMessageResult(role="assistant", content=t.TextContent(type="text", text="x"), model="rig")


async def elicited(ctx: Any, params: Any) -> t.ElicitResult:
    return t.ElicitResult(action="cancel")


async def roots(ctx: Any) -> t.ListRootsResult:
    return t.ListRootsResult(roots=[])


async def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("url")
    p.add_argument("--era", default="auto")
    p.add_argument("--transport", default="http")
    a = p.parse_args()
    transport: Any = sse_client(a.url) if a.transport == "sse" else streamable_http_client(a.url)
    client = Client(
        transport,
        mode=a.era if a.transport == "http" else "legacy",
        sampling_callback=sampled,
        elicitation_callback=elicited,
        list_roots_callback=roots,
        cache=None,
    )
    async with client as c:
        await c.list_tools()
        await asyncio.sleep(SETTLED_SECONDS)
        listed = {
            "tools": [it.name for it in (await c.list_tools()).tools],
            "prompts": [it.name for it in (await c.list_prompts()).prompts],
            "resources": [str(it.uri) for it in (await c.list_resources()).resources],
            "templates": [it.uri_template for it in (await c.list_resource_templates()).resource_templates],
        }
        print(json.dumps(listed), flush=True)


asyncio.run(main())
