#!/usr/bin/env python3
"""A user of the Python SDK 2.x who lists and calls the tools of these names, each called example_tool by its server.

    example_tool.py URL TOOL...
"""

import asyncio
import sys

from mcp.client.client import Client


async def main() -> None:
    url, *tools = sys.argv[1:]
    async with Client(url) as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]
        for tool in tools:
            print(f"ok list-{tool}" if tool in listed else f"FAIL list-{tool} not in {listed}")
            result = await client.call_tool(tool, {"message": "héllo"})
            said = result.content[0].text
            well = said == "Processed: héllo" and not result.is_error
            print(f"ok call-{tool}" if well else f"FAIL call-{tool} {said!r}")


asyncio.run(main())
