#!/usr/bin/env python3
"""The client of the conformance suite's client scenarios, on the stock Python SDK.

    drive.py URL

The suite names its scenario in MCP_CONFORMANCE_SCENARIO, the revision in
MCP_CONFORMANCE_PROTOCOL_VERSION and what is to be called, for some, in MCP_CONFORMANCE_CONTEXT.
RIG_PREFIX is what stands in front of the tool names of the suite's server when a gateway is in
between. With RIG_BRIDGED=1 the client is of the other era than the suite's server.
"""

import asyncio
import json
import os
import sys
from typing import Any

import mcp_types as t
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError

PREFIX = os.environ.get("RIG_PREFIX", "")
SCENARIO = os.environ["MCP_CONFORMANCE_SCENARIO"]
CONTEXT: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")

# Of the revision's era, but for one server, which knows only the handshake whatever the revision is.
MODERN = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"] >= "2026" and SCENARIO != "json-schema-ref-no-deref"
DIRECT = "RIG_PREFIX" not in os.environ
BRIDGED = os.environ.get("RIG_BRIDGED") == "1"


async def elicited(ctx: Any, params: Any) -> t.ElicitResult:
    """Accepts; every property that has a default gets it, other booleans are true."""
    properties = params.requested_schema.get("properties", {})
    content = {name: schema["default"] for name, schema in properties.items() if "default" in schema}
    content |= {name: True for name in properties if properties[name].get("type") == "boolean" and name not in content}
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


async def metadata(client: Client) -> None:
    await client.list_tools()
    try:
        await client.call_tool(PREFIX + "add_numbers", {"a": 5, "b": 3})
    except MCPError as e:
        # The suite's server lists no tool, and answers a call of any. The gateway knows none.
        need(not DIRECT and "add_numbers" in str(e), e)


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


async def mrtr(client: Client) -> None:
    await client.list_tools()
    for name, answer in (
        ("echo_state", "echo-state-ok"),
        ("unrelated", "unrelated-ok"),
        ("no_state", "no-state-ok"),
        ("no_result_type", "no-result-type-test-ok"),
    ):
        try:
            result = await client.call_tool(f"{PREFIX}test_mrtr_{name}", {})
        except ValueError as e:
            # The SDK does not read a result without resultType; the gateway gives every result one.
            need(DIRECT and name == "no_result_type", e)
        else:
            need(answer in str(result.content), result)


async def standard_headers(client: Client) -> None:
    tools = (await client.list_tools()).tools
    tool = next(tool for tool in tools if tool.name.startswith(PREFIX))
    result = await client.call_tool(tool.name, sample_arguments(tool.input_schema))
    need(not result.is_error, result)
    prompts = (await client.list_prompts()).prompts
    prompt = next(prompt for prompt in prompts if prompt.name.startswith(PREFIX))
    await client.get_prompt(prompt.name, {a.name: "x" for a in prompt.arguments or []})
    # A server beside it has resources of its own.
    resources = (await client.list_resources()).resources
    resource = next(r for r in resources if not str(r.uri).startswith("demo://"))
    await client.read_resource(resource.uri)


async def custom_headers(client: Client) -> None:
    offered = {tool.name for tool in (await client.list_tools()).tools}
    for call in CONTEXT["toolCalls"]:
        need(PREFIX + call["name"] in offered, f"not offered: {call['name']}")
        result = await client.call_tool(PREFIX + call["name"], call.get("arguments") or {})
        need(not result.is_error, result)


async def every_tool(client: Client) -> None:
    for tool in (await client.list_tools()).tools:
        if tool.name.startswith(PREFIX):
            try:
                result = await client.call_tool(tool.name, sample_arguments(tool.input_schema))
            except MCPError as e:
                # What may not be called may still be in a list of the era that knows no headers.
                need(tool.name != PREFIX + "valid_tool", e)
            else:
                need(tool.name != PREFIX + "valid_tool" or not result.is_error, result)


def sample_arguments(schema: dict[str, Any]) -> dict[str, Any]:
    by_type = {"string": "x", "integer": 1, "number": 1, "boolean": True, "object": {}, "array": [], "null": None}
    properties = schema.get("properties", {})
    return {name: by_type.get(properties.get(name, {}).get("type"), "x") for name in schema.get("required", [])}


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
    "request-metadata": (metadata, ALL),
    "sep-2322-client-request-state": (mrtr, {"elicitation_callback": elicited}),
    "http-standard-headers": (standard_headers, ALL),
    "http-custom-headers": (custom_headers, {}),
    "http-invalid-tool-headers": (every_tool, {}),
    "json-schema-ref-no-deref": (initialize, {}),
}


async def main() -> None:
    scenario, declared = SCENARIOS[SCENARIO]
    modern = MODERN != BRIDGED
    async with Client(sys.argv[-1], mode="auto" if modern else "legacy", **declared) as client:
        need((client.protocol_version >= "2026") == modern, client.protocol_version)
        await scenario(client)


asyncio.run(main())
