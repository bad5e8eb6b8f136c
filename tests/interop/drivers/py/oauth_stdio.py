#!/usr/bin/env python3
"""A host that starts a program over stdio, which signs in by itself, and calls a tool: oauth_stdio.py TOOL COMMAND [WORD…]

Prints what the tool says.
"""

import asyncio
import os
import sys

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client


async def main() -> None:
    tool, command, *words = sys.argv[1:]
    program = StdioServerParameters(command=command, args=words, env=dict(os.environ))
    async with Client(stdio_client(program), mode="legacy") as client:
        result = await client.call_tool(tool, {})
        assert not result.is_error, result
        print(result.content[0].text)


asyncio.run(asyncio.wait_for(main(), 50))
