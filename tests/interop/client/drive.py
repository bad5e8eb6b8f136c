#!/usr/bin/env python3
"""The client of the conformance suite's client scenarios, on the stock Python SDK.

    drive.py URL

The suite names its scenario in MCP_CONFORMANCE_SCENARIO. RIG_PREFIX is what stands in front of
the tool names of the suite's server when a gateway is in between.
"""

import asyncio
import os
import sys

from mcp.client.client import Client

PREFIX = os.environ.get("RIG_PREFIX", "")


async def initialize(client: Client) -> None:
    await client.list_tools()


async def tools_call(client: Client) -> None:
    await client.list_tools()
    result = await client.call_tool(PREFIX + "add_numbers", {"a": 5, "b": 3})
    # The suite sees only what reaches its server; that the answer comes back is checked here.
    if "The sum of 5 and 3 is 8" not in str(result.content):
        sys.exit(f"another answer: {result}")


async def main() -> None:
    scenario = {"initialize": initialize, "tools_call": tools_call}[os.environ["MCP_CONFORMANCE_SCENARIO"]]
    async with Client(sys.argv[-1], mode="legacy") as client:
        await scenario(client)


asyncio.run(main())
