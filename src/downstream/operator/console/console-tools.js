// The console's tools: found, shown with their schemas, and called by a stateless MCP request from a
// form that is made of the schema.

import { ask, at, block, cut, duration, eventsOf, make, page } from "./console-base.js";

const REVISION = "2026-07-28";
const TOOLS_SHOWN_MAX = 300;

let tools = null;
let chosen = null;
let running = null;

/** Whether tools have been read, and shall be when servers change. */
export function areToolsRead() {
  return tools !== null;
}

export function forgetTools() {
  running?.abort();
  tools = null;
  chosen = null;
  at("n-tools").textContent = "";
  at("tool-filter").value = "";
  at("tool-list").replaceChildren();
  at("tool-detail").replaceChildren(make("p", { class: "empty" }, "Choose a tool to see its schema and to try it."));
}

export async function readTools() {
  const body = await (await ask("mcp/tools/list")).json();
  tools = body.tools ?? [];
  showTools();
}

export function showTools() {
  const list = at("tool-list");
  if (tools === null) return;
  const wanted = at("tool-filter").value.trim().toLowerCase();
  const fits = (tool) => `${tool.name} ${tool.title ?? ""} ${tool.description ?? ""}`.toLowerCase().includes(wanted);
  const found = wanted ? tools.filter(fits) : tools;
  if (tools.length === 0) {
    at("n-tools").textContent = "No tool is offered. A server offers its tools once it is ready; the part Servers says how each one is.";
  } else if (found.length === 0) {
    at("n-tools").textContent = `None of the ${tools.length} tools has this in its name or description.`;
  } else {
    const bound = found.length > TOOLS_SHOWN_MAX ? `; the first ${TOOLS_SHOWN_MAX} are shown` : "";
    at("n-tools").textContent = `${found.length} of ${tools.length} tools${bound}`;
  }
  // The focus stays on the same tool.
  const focused = list.contains(document.activeElement) ? document.activeElement.textContent : null;
  list.replaceChildren(...found.slice(0, TOOLS_SHOWN_MAX).map((tool) =>
    make("li", {}, make("button", {
      type: "button",
      "aria-current": tool.name === chosen?.name ? "true" : null,
      onclick: () => choose(tool),
    }, tool.name))));
  if (focused !== null) [...list.querySelectorAll("button")].find((it) => it.textContent === focused)?.focus();
}

function choose(tool) {
  chosen = tool;
  showTools();
  showTool(tool);
  const detail = at("tool-detail");
  detail.focus();
  if (matchMedia("(max-width: 50rem)").matches) detail.scrollIntoView();
}

/** The one type of a schema that a form can be made for; null where there are several. */
function typeOf(schema) {
  if (!schema || typeof schema !== "object") return null;
  if (Array.isArray(schema.enum)) return "enum";
  const types = Array.isArray(schema.type) ? schema.type.filter((it) => it !== "null") : [schema.type];
  return types.length === 1 && ["string", "number", "integer", "boolean"].includes(types[0]) ? types[0] : null;
}

/** A field for one argument: its elements, and how its value is read. */
function field(name, schema, isRequired) {
  const type = typeOf(schema);
  const id = `argument-${name}`;
  const label = make("label", { for: id }, schema?.title ?? name, " ",
    make("span", { class: "quiet" }, `${schema?.title ? `${name}, ` : ""}${type === "enum" ? "one of these" : type ?? "JSON"}${isRequired ? ", required" : ""}`));
  const help = schema?.description ? make("p", { class: "help", id: `${id}-help` }, schema.description) : null;
  const common = { id, "aria-describedby": help ? `${id}-help` : null };
  let input;
  let read;
  if (type === "enum") {
    const options = schema.enum.map((value, place) => make("option", { value: String(place) }, String(value)));
    input = make("select", common, isRequired ? null : make("option", { value: "" }, "(not given)"), options);
    read = () => (input.value === "" ? undefined : schema.enum[Number(input.value)]);
  } else if (type === "boolean") {
    input = make("select", common, isRequired ? null : make("option", { value: "" }, "(not given)"),
      make("option", { value: "true" }, "true"), make("option", { value: "false" }, "false"));
    read = () => (input.value === "" ? undefined : input.value === "true");
  } else if (type === "number" || type === "integer") {
    input = make("input", { ...common, type: "text", inputmode: "decimal", required: isRequired, autocomplete: "off" });
    read = () => {
      if (input.value.trim() === "") return undefined;
      const value = Number(input.value);
      if (!Number.isFinite(value)) throw new Error(`${name} must be a number.`);
      if (type === "integer" && !Number.isInteger(value)) throw new Error(`${name} must be a whole number.`);
      return value;
    };
  } else if (type === "string") {
    const isLong = (schema.maxLength ?? 1000) > 200;
    input = isLong ? make("textarea", { ...common, class: "text", rows: "1" }) : make("input", { ...common, type: "text", autocomplete: "off" });
    read = () => (input.value === "" && !isRequired ? undefined : input.value);
  } else {
    input = make("textarea", { ...common, rows: "3", spellcheck: "false", placeholder: "JSON" });
    read = () => {
      if (input.value.trim() === "") return undefined;
      try { return JSON.parse(input.value); } catch (error) { throw new Error(`${name} must be JSON, such as ["a", "b"] or {"a": 1}: ${error.message}`); }
    };
  }
  if (schema?.default !== undefined) {
    if (type === "enum") input.value = String(schema.enum.findIndex((it) => it === schema.default));
    else input.value = type === "string" ? schema.default : JSON.stringify(schema.default);
  }
  return { name, input, isRequired, read, parts: [label, input, help] };
}

function showTool(tool) {
  const schema = tool.inputSchema ?? {};
  const required = new Set(Array.isArray(schema.required) ? schema.required : []);
  const properties = Object.entries(schema.properties ?? {});
  const fields = properties.map(([name, its]) => field(name, its, required.has(name)));
  const out = make("div", { "aria-live": "polite", id: "tool-result" });
  const run = make("button", { type: "submit" }, "Call");
  const stop = make("button", { type: "button", class: "plain", hidden: true, onclick: () => running?.abort() }, "Cancel");
  const form = make("form", {
    novalidate: true,
    onsubmit: (event) => {
      event.preventDefault();
      call(tool, fields, out, run, stop);
    },
  }, fields.flatMap((it) => it.parts), make("div", { class: "buttons" }, run, stop));
  const hints = Object.entries(tool.annotations ?? {}).filter(([name, value]) => name.endsWith("Hint") && value === true);
  at("tool-detail").replaceChildren(make("article", { class: "card" },
    make("h3", {}, tool.title ?? tool.annotations?.title ?? tool.name),
    make("p", { class: "quiet" }, tool.name, hints.length ? ` · says of itself: ${hints.map(([name]) => name.replace("Hint", "")).join(", ")}` : ""),
    tool.description ? make("p", { class: "description" }, cut(tool.description)) : null,
    fields.length === 0 ? make("p", { class: "quiet" }, "It takes no arguments.") : null,
    form, out,
    make("details", {}, make("summary", {}, "Schema"), block(JSON.stringify(tool.inputSchema, null, 2)),
      tool.outputSchema ? block(JSON.stringify(tool.outputSchema, null, 2)) : null)));
}

/** The messages of an answer, JSON or a stream of events, as they come. */
async function* messages(response) {
  if (!(response.headers.get("content-type") ?? "").startsWith("text/event-stream")) {
    yield await response.json();
    return;
  }
  for await (const event of eventsOf(response)) yield event.data;
}

async function call(tool, fields, out, run, stop) {
  const given = {};
  for (const { name, input, isRequired, read } of fields) {
    input.removeAttribute("aria-invalid");
    try {
      const value = read();
      if (value !== undefined) given[name] = value;
      else if (isRequired) throw new Error(`${name} is required.`);
    } catch (error) {
      input.setAttribute("aria-invalid", "true");
      input.focus();
      out.replaceChildren(make("p", { class: "trouble", role: "alert" }, error.message));
      return;
    }
  }
  const bar = make("progress", {});
  const told = make("p", { class: "quiet" }, "running …");
  out.replaceChildren(bar, told);
  run.disabled = true;
  stop.hidden = false;
  running = new AbortController();
  const began = performance.now();
  try {
    const answer = await stateless("tools/call", { name: tool.name, arguments: given }, running.signal, (params) => {
      if (typeof params.total === "number" && params.total > 0) {
        bar.max = params.total;
        bar.value = params.progress;
      }
      told.textContent = params.message ?? `${params.progress}${params.total ? ` of ${params.total}` : ""}`;
    });
    showAnswer(out, answer, performance.now() - began);
  } catch (error) {
    const what = error.name === "AbortError" ? "The call was cancelled." : error.message;
    out.replaceChildren(make("p", { class: "trouble", role: "alert" }, what));
  } finally {
    run.disabled = false;
    stop.hidden = true;
    running = null;
  }
}

/** One stateless MCP request; gives the response's message. */
async function stateless(method, params, signal, onProgress) {
  const meta = {
    "io.modelcontextprotocol/protocolVersion": REVISION,
    "io.modelcontextprotocol/clientInfo": { name: "trunkline-console", version: page.status?.version ?? "0" },
    "io.modelcontextprotocol/clientCapabilities": {},
    progressToken: "console",
  };
  const headers = {
    "Content-Type": "application/json",
    Accept: "application/json, text/event-stream",
    "MCP-Protocol-Version": REVISION,
    "Mcp-Method": method,
    "Mcp-Name": headerValue(params.name),
    ...mirrored(params),
  };
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params: { ...params, _meta: meta } });
  const response = await ask("mcp", { method: "POST", headers, body, signal });
  for await (const message of messages(response)) {
    if (message.method === "notifications/progress") onProgress(message.params ?? {});
    else if (message.id === 1) return message;
  }
  throw new Error("The gateway ended the connection before the call was answered. Whether the tool has run is not known.");
}

/** Text as a header can carry it (2026-07-28, basic/transports/streamable-http). */
function headerValue(text) {
  if (/^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(text) && !text.startsWith("=?base64?")) return text;
  const binary = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
  return `=?base64?${btoa(binary)}?=`;
}

/** The headers that repeat those arguments which the tool's schema marks with x-mcp-header. */
function mirrored(params) {
  const headers = {};
  for (const [name, schema] of Object.entries(chosen?.inputSchema?.properties ?? {})) {
    const header = schema?.["x-mcp-header"];
    const value = params.arguments?.[name];
    if (typeof header === "string" && value !== undefined && value !== null) headers[`Mcp-Param-${header}`] = headerValue(String(value));
  }
  return headers;
}

function showAnswer(out, answer, took) {
  const parts = [];
  if (answer.error) {
    parts.push(make("p", { class: "trouble", role: "alert" }, `${answer.error.message} (${answer.error.code})`));
    if (answer.error.data !== undefined) parts.push(block(JSON.stringify(answer.error.data, null, 2)));
  } else {
    const result = answer.result ?? {};
    if (result.resultType === "input_required") {
      parts.push(make("p", { class: "trouble", role: "alert" }, "The server asks for more input, which this page cannot give. Call the tool from an MCP client, or with trunkline call on a terminal."));
    }
    const word = result.isError ? "The tool reports an error" : "The tool has answered";
    parts.push(make("p", { class: result.isError ? "state bad" : "state good" }, `${word} (${duration(took)})`));
    parts.push(...(result.content ?? []).map(content));
    if (result.structuredContent !== undefined) {
      parts.push(make("details", {}, make("summary", {}, "Structured content"), block(JSON.stringify(result.structuredContent, null, 2))));
    }
  }
  out.replaceChildren(...parts);
}

function content(part) {
  if (part.type === "text") return block(part.text ?? "");
  const isData = typeof part.data === "string" && /^[A-Za-z0-9+/=\s]*$/.test(part.data);
  if (part.type === "image" && isData && /^image\/(png|jpeg|gif|webp)$/.test(part.mimeType)) {
    return make("img", { class: "result", alt: "the image that the tool gave", src: `data:${part.mimeType};base64,${part.data}` });
  }
  return block(JSON.stringify(part, null, 2));
}
