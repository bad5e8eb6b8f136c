#!/usr/bin/env python3
"""The same as drivers/node/oauth_own.mjs, on the Python SDK 2.x: oauth_own.py URL TOOL --key KEY [--era auto|legacy] [--mute]"""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as t
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

BROWSER = Path(__file__).resolve().parents[2] / "client/browser.py"
p = argparse.ArgumentParser()
p.add_argument("url")
p.add_argument("tool")
p.add_argument("--key")
p.add_argument("--era", default="auto")
p.add_argument("--mute", action="store_true")
a = p.parse_args()


async def asked(ctx: Any, params: Any) -> t.ElicitResult:
    print("asked", getattr(params, "mode", "form"), getattr(params, "url", ""), params.message)
    if not getattr(params, "url", None):
        return t.ElicitResult(action="decline")
    browser = await asyncio.create_subprocess_exec(sys.executable, str(BROWSER), params.url, env=os.environ)
    await browser.wait()
    return t.ElicitResult(action="accept")


async def main() -> None:
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {a.key}"}, timeout=40)
    more = {} if a.mute else {"elicitation_callback": asked}
    async with Client(streamable_http_client(a.url, http_client=http), mode=a.era, **more) as client:
        try:
            result = await client.call_tool(a.tool, {})
            print("error" if result.is_error else "says", result.content[0].text)
        except MCPError as e:
            print("error", e, getattr(e, "data", None))


asyncio.run(main())
