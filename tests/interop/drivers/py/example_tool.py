#!/usr/bin/env python3
"""A user of the Python SDK 2.x who lists and calls the tools of these names, each of which answers with the message it is given.

    example_tool.py URL [--era auto|legacy|2026-07-28] TOOL...
"""

import argparse
import asyncio

from mcp.client.client import Client


async def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("url")
    p.add_argument("--era", default="auto")
    p.add_argument("tools", nargs="+")
    a = p.parse_intermixed_args()
    async with Client(a.url, mode=a.era) as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]
        for tool in a.tools:
            print(f"ok list-{tool}" if tool in listed else f"FAIL list-{tool} not in {listed}")
            try:
                result = await client.call_tool(tool, {"message": "héllo"})
            except Exception as e:
                print(f"FAIL call-{tool} {e!r}")
                continue
            said = result.content[0].text
            well = said.endswith("héllo") and not result.is_error
            print(f"ok call-{tool}" if well else f"FAIL call-{tool} {said!r}")


asyncio.run(main())
