#!/usr/bin/env python3
"""A user of the Python SDK 2.x before odd servers: lists with malformed items, and links to be read.

    odd_lists.py URL [--era legacy|2026-07-28]
"""

import asyncio

from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from report import Report, arguments, need, text_of

a = arguments(__doc__, transports=("http",), eras=("legacy", "2026-07-28"))


async def main() -> None:
    r = Report(a)
    c = Client(streamable_http_client(a.url), mode=a.era, cache=None)

    async def connect() -> str:
        await c.__aenter__()
        return f"{c.protocol_version}"

    if not await r.check("connect", connect, 0):
        return r.done()

    async def lists() -> str:
        tools = [x.name for x in (await c.list_tools()).tools]
        prompts = [x.name for x in (await c.list_prompts()).prompts]
        resources = [str(x.uri) for x in (await c.list_resources()).resources]
        templates = [x.uri_template for x in (await c.list_resource_templates()).resource_templates]
        for names, odd in ((tools, 19), (prompts, 4)):
            own = [n for n in names if n.startswith("malformed-")]
            need("malformed-good" in own and len(own) == odd, own)
        own = [n for n in resources if n.startswith("malformed:")]
        need(own == ["malformed://good", "malformed://odd2", "malformed://odd3"], own)
        own = [n for n in templates if n.startswith("malformed:")]
        need(own == ["malformed://t/{good}"], own)
        need(any(n.startswith("everything-") for n in tools), tools)
        got = text_of(await c.call_tool("malformed-good"))
        need(got == "called", got)
        return f"{len(tools)} tools"

    async def links() -> str:
        n = 0
        for server, mark in (("everything", ""), ("other", "other+")):
            result = await c.call_tool(f"{server}-get-resource-links", {"count": 4})
            uris = [str(x.uri) for x in result.content if x.type == "resource_link"]
            need(len(uris) == 4 and all(u.startswith(f"{mark}demo://") for u in uris), uris)
            for uri in uris:
                contents = (await c.read_resource(uri)).contents
                need(str(contents[0].uri) == uri, contents)
                n += 1
        return f"{n} links"

    await r.check("lists", lists)
    await r.check("links", links)
    r.done()


asyncio.run(main())
