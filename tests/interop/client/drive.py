#!/usr/bin/env python3
"""The client of the conformance suite's client scenarios, on the stock Python SDK.

    drive.py URL

The suite names its scenario in MCP_CONFORMANCE_SCENARIO. RIG_PREFIX is what stands in front of
the tool names of the suite's server when a gateway is in between.
"""

import asyncio
import os
import sys
from typing import Any

import mcp_types as t
from mcp.client.client import Client

PREFIX = os.environ.get("RIG_PREFIX", "")


async def elicited(ctx: Any, params: Any) -> t.ElicitResult:
    """Accepts; every property that has a default gets it."""
    properties = params.requested_schema.get("properties", {})
    content = {name: schema["default"] for name, schema in properties.items() if "default" in schema}
    return t.ElicitResult(action="accept", content=content)


async def sampled(ctx: Any, params: Any) -> t.CreateMessageResult:
    return t.CreateMessageResult(role="assistant", content=t.TextContent(type="text", text="yes"), model="interop")


async def roots(ctx: Any) -> t.ListRootsResult:
    return t.ListRootsResult(roots=[t.Root(uri="file:///interop")])


ALL: dict[str, Any] = {"elicitation_callback": elicited, "sampling_callback": sampled, "list_roots_callback": roots}


async def initialize(client: Client) -> None:
    await client.list_tools()


# The suite sees only what reaches its server; that the answers come back is checked here.


async def tools_call(client: Client) -> None:
    await client.list_tools()
    result = await client.call_tool(PREFIX + "add_numbers", {"a": 5, "b": 3})
    need("The sum of 5 and 3 is 8" in str(result.content), result)


async def defaults(client: Client) -> None:
    await client.list_tools()
    result = await client.call_tool(PREFIX + "test_client_elicitation_defaults", {})
    need(not result.is_error and result.content, result)


async def retry(client: Client) -> None:
    await client.list_tools()
    result = await client.call_tool(PREFIX + "test_reconnection", {})
    need(not result.is_error and result.content, result)


async def preserve(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    schema = tools[PREFIX + "json_schema_2020_12_tool"].input_schema
    result = await client.call_tool(PREFIX + "json_schema_echo", {"schema": schema})
    need(not result.is_error, result)


def need(condition: Any, result: Any) -> None:
    if not condition:
        sys.exit(f"another answer: {result}")


# What each scenario does, and what the client declares for it.
SCENARIOS: dict[str, tuple[Any, dict[str, Any]]] = {
    "initialize": (initialize, {}),
    "tools_call": (tools_call, {}),
    "elicitation-sep1034-client-defaults": (defaults, ALL),
    "sse-retry": (retry, {}),
    "json-schema-2020-12-preservation": (preserve, {}),
}


async def main() -> None:
    scenario, declared = SCENARIOS[os.environ["MCP_CONFORMANCE_SCENARIO"]]
    async with Client(sys.argv[-1], mode="legacy", **declared) as client:
        await scenario(client)


asyncio.run(main())
