// The console: one page over /status, the REST endpoints and stateless MCP calls. Everything that a
// server says is written as text, never as HTML.

const REVISION = "2026-07-28";
const REFRESH_MS = 2000;
const PIN_REFRESH_MS = 10000;
const TOOLS_SHOWN_MAX = 300;
const TEXT_SHOWN_MAX = 200000;

const at = (id) => document.getElementById(id);

let key = null;
let status = null;
let tools = null;
let chosen = null;
let running = null;
let pinsReadAt = 0;
let askedForKey = false;

/** An element with attributes and children; strings become text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function cut(text) {
  return text.length > TEXT_SHOWN_MAX
    ? `${text.slice(0, TEXT_SHOWN_MAX)}\n… ${text.length - TEXT_SHOWN_MAX} more characters`
    : text;
}

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** A request under this page's path, with the key if there is one. */
async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (key !== null) headers.set("Authorization", `Bearer ${key}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The gateway does not answer. Is it running, and does this browser reach it?");
  }
  if (response.ok) return response;
  let message = `${response.status} ${response.statusText}`;
  try {
    const body = await response.json();
    message = body.error?.message ?? message;
  } catch { /* It is not JSON; the status says enough. */ }
  if (response.status === 401) askForKey(key === null ? "" : "This key is not accepted.");
  throw new Refused(response.status, message);
}

function askForKey(why) {
  key = null;
  askedForKey = true;
  at("forget-key").hidden = true;
  at("key-why").hidden = why === "";
  at("key-why").textContent = why;
  if (!at("key-dialog").open) at("key-dialog").showModal();
}

function duration(ms) {
  const seconds = Math.round(ms / 1000);
  if (ms < 1000) return `${ms < 10 ? Number(ms.toFixed(2)) : Math.round(ms)} ms`;
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

function bytes(n) {
  if (n < 10240) return `${n} B`;
  return n < 10485760 ? `${Math.round(n / 1024)} KiB` : `${Math.round(n / 1048576)} MiB`;
}

function troubled(text) {
  at("trouble").hidden = !text;
  at("trouble").textContent = text ?? "";
}

// ---- Servers

const STATES = {
  ready: ["ready", "good"],
  starting: ["starting", "warn"],
  backing_off: ["not reached yet", "warn"],
  down: ["down", "bad"],
  needs_sign_in: ["sign-in wanted", "warn"],
};

/** What an operator can do about a failure, if that is known. */
function advice(server) {
  const failure = server.last_failure;
  if (!failure) return null;
  if (failure.what_to_do) return failure.what_to_do;
  const message = failure.message.toLowerCase();
  const status = failure.status;
  if (server.state === "needs_sign_in") return `Run: trunkline login ${server.server}`;
  if (status === 401 || message.includes("401")) {
    return `The server wants a credential: set headers.Authorization of ${server.server} in the configuration.`;
  }
  if (status === 403 || message.includes("403")) return "The server knows the credential and refuses it: look at its rights.";
  if (status === 404 || message.includes("404")) return "The address leads to no MCP endpoint: look at the path of its url.";
  if (failure.stage === "resolve") return "The host name is not known: look at its url and at this machine's name server.";
  if (failure.stage === "connect") return "Nothing takes connections there: is the server running, and is the port right?";
  if (failure.stage === "tls") return "The certificate is not trusted: ca_file adds one, or its url should begin with http://.";
  if (failure.stage === "spawn") return "The command does not start: look at command, args and PATH. Its own words are below, if it had any.";
  if (failure.stage === "handshake") return "It answers, but not as an MCP server of the configured transport: look at transport and at the path.";
  return null;
}

function serverCard(server) {
  const [word, kind] = STATES[server.state] ?? [server.state, "warn"];
  const facts = [];
  const fact = (name, value) => {
    if (value !== null && value !== undefined && value !== "") facts.push(make("dt", {}, name), make("dd", {}, String(value)));
  };
  if (server.starting_ms) fact("Starting for", duration(server.starting_ms));
  if (server.next_try_ms !== null && server.next_try_ms !== undefined) fact("Next try in", duration(server.next_try_ms));
  if (server.down_since) fact("Down since", new Date(server.down_since * 1000).toLocaleString());
  const info = server.server_info;
  fact("It is", info ? [info.title ?? info.name, info.version].filter(Boolean).join(" ") : null);
  fact("Speaks", [server.transport, server.era, server.revision].filter(Boolean).join(", "));
  fact("Latency", typeof server.latency_ms === "number" ? duration(server.latency_ms) : null);
  const counts = [["tools", server.tools], ["prompts", server.prompts], ["resources", server.resources]];
  if (server.state === "ready") {
    fact("Offers", counts.filter(([, n]) => n > 0).map(([what, n]) => `${n} ${what}`).join(", ") || "nothing");
  }
  if (server.in_flight || server.waiting) fact("Calls", `${server.in_flight ?? 0} running, ${server.waiting ?? 0} waiting`);
  if (server.restarts) fact("Restarts", server.restarts);
  const failure = server.last_failure;
  const isOver = server.state === "ready";
  const hint = isOver ? null : advice(server);
  const stderr = server.stderr ?? [];
  return make("article", { class: "card", "data-server": server.server },
    make("header", {}, make("h3", {}, server.server), make("span", { class: `state ${kind}` }, word)),
    server.description ? make("p", { class: "quiet description" }, server.description) : null,
    make("dl", {}, facts),
    failure ? make("div", { class: "failure" },
      make("p", {}, make("strong", {}, `${isOver ? "Last failure" : "Failure"} (${failure.stage}), ${duration((failure.seconds_ago ?? 0) * 1000)} ago: `), failure.message),
      hint ? make("p", {}, hint) : null) : null,
    stderr.length > 0 ? make("details", {}, make("summary", {}, `What it wrote to standard error (${stderr.length})`),
      make("pre", { tabindex: "0" }, cut(stderr.join("\n")))) : null);
}

function showServers() {
  const list = at("server-list");
  const open = new Set([...list.querySelectorAll("details[open]")].map((it) => it.closest("article").dataset.server));
  const servers = status.upstreams ?? [];
  if (servers.length === 0) {
    list.replaceChildren(make("p", { class: "empty" },
      "There is no server that this key may use. Servers are configured in config.json under \"mcp_servers\"; a key may be kept from them by its \"servers\"."));
    return;
  }
  list.replaceChildren(...servers.map(serverCard));
  for (const card of list.querySelectorAll("article")) {
    if (open.has(card.dataset.server)) card.querySelector("details")?.setAttribute("open", "");
  }
}

// ---- Tools

async function readTools() {
  const body = await (await ask("mcp/tools/list")).json();
  tools = body.tools ?? [];
  showTools();
}

function showTools() {
  const list = at("tool-list");
  if (tools === null) return;
  const wanted = at("tool-filter").value.trim().toLowerCase();
  const fits = (tool) => `${tool.name} ${tool.title ?? ""} ${tool.description ?? ""}`.toLowerCase().includes(wanted);
  const found = wanted ? tools.filter(fits) : tools;
  at("n-tools").textContent = tools.length === 0
    ? "No tool is offered. A server that is not ready shows nothing here: look at Servers."
    : `${found.length} of ${tools.length}${found.length > TOOLS_SHOWN_MAX ? `, the first ${TOOLS_SHOWN_MAX} shown` : ""}`;
  list.replaceChildren(...found.slice(0, TOOLS_SHOWN_MAX).map((tool) =>
    make("li", {}, make("button", {
      type: "button",
      "aria-current": tool.name === chosen?.name ? "true" : null,
      onclick: () => choose(tool),
    }, tool.name))));
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
    make("span", { class: "quiet" }, `${schema?.title ? `${name}, ` : ""}${type ?? "JSON"}${isRequired ? ", required" : ""}`));
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
      if (!Number.isFinite(value) || (type === "integer" && !Number.isInteger(value))) throw new Error(`${name}: this is no ${type}`);
      return value;
    };
  } else if (type === "string") {
    const isLong = (schema.maxLength ?? 1000) > 200;
    input = isLong ? make("textarea", { ...common, rows: "2" }) : make("input", { ...common, type: "text", autocomplete: "off" });
    read = () => (input.value === "" && !isRequired ? undefined : input.value);
  } else {
    input = make("textarea", { ...common, rows: "3", spellcheck: "false", placeholder: "JSON" });
    read = () => {
      if (input.value.trim() === "") return undefined;
      try { return JSON.parse(input.value); } catch (error) { throw new Error(`${name}: this is no JSON (${error.message})`); }
    };
  }
  if (schema?.default !== undefined) {
    if (type === "enum") input.value = String(schema.enum.findIndex((it) => it === schema.default));
    else input.value = type === "string" ? schema.default : JSON.stringify(schema.default);
  }
  return { name, isRequired, read, parts: [label, input, help] };
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
    make("details", {}, make("summary", {}, "Schema"), make("pre", { tabindex: "0" }, cut(JSON.stringify(tool.inputSchema, null, 2))),
      tool.outputSchema ? make("pre", { tabindex: "0" }, cut(JSON.stringify(tool.outputSchema, null, 2))) : null)));
}

/** The messages of an answer, JSON or a stream of events, as they come. */
async function* messages(response) {
  if (!(response.headers.get("content-type") ?? "").startsWith("text/event-stream")) {
    yield await response.json();
    return;
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const events = rest.split(/\r?\n\r?\n/);
    rest = events.pop();
    for (const event of events) {
      const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, ""));
      if (data.length > 0 && data.join("") !== "") yield JSON.parse(data.join("\n"));
    }
  }
}

async function call(tool, fields, out, run, stop) {
  const given = {};
  try {
    for (const { name, isRequired, read } of fields) {
      const value = read();
      if (value !== undefined) given[name] = value;
      else if (isRequired) throw new Error(`${name}: it is required`);
    }
  } catch (error) {
    out.replaceChildren(make("p", { class: "trouble", role: "alert" }, error.message));
    return;
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
    "io.modelcontextprotocol/clientInfo": { name: "trunkline-console", version: status?.version ?? "0" },
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
  throw new Error("The answer broke off.");
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
    if (answer.error.data !== undefined) parts.push(make("pre", { tabindex: "0" }, cut(JSON.stringify(answer.error.data, null, 2))));
  } else {
    const result = answer.result ?? {};
    if (result.resultType === "input_required") {
      parts.push(make("p", { class: "trouble", role: "alert" }, "The server asks for input, which this page cannot give: use a client, or trunkline call."));
    }
    const word = result.isError ? "The tool reports an error" : "Done";
    parts.push(make("p", { class: result.isError ? "state bad" : "state good" }, `${word}, ${duration(took)}`));
    parts.push(...(result.content ?? []).map(content));
    if (result.structuredContent !== undefined) {
      parts.push(make("details", {}, make("summary", {}, "Structured content"), make("pre", { tabindex: "0" }, cut(JSON.stringify(result.structuredContent, null, 2)))));
    }
  }
  out.replaceChildren(...parts);
}

function content(block) {
  if (block.type === "text") return make("pre", { tabindex: "0" }, cut(block.text ?? ""));
  const isData = typeof block.data === "string" && /^[A-Za-z0-9+/=\s]*$/.test(block.data);
  if (block.type === "image" && isData && /^image\/(png|jpeg|gif|webp)$/.test(block.mimeType)) {
    return make("img", { class: "result", alt: "the image that the tool gave", src: `data:${block.mimeType};base64,${block.data}` });
  }
  return make("pre", { tabindex: "0" }, cut(JSON.stringify(block, null, 2)));
}

// ---- Activity

function table(caption, heads, rows, none) {
  if (rows.length === 0) return make("div", {}, make("h3", {}, caption), make("p", { class: "empty" }, none));
  const cell = (tag, value) => make(tag, { class: typeof value === "number" ? "number" : null }, String(value ?? ""));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, make("table", {}, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map((value) => cell("td", value)))))));
}

function showActivity() {
  const parts = [];
  const isTold = status.limits !== undefined;
  if (!isTold) {
    parts.push(make("p", { class: "empty" }, "What others bring about is shown to an admin key only (\"admin\": true in api_keys)."));
  } else {
    const calls = status.calls?.oldest ?? [];
    parts.push(table("Calls that run now", ["what", "server", "key", "client", "from", "for"],
      calls.map((it) => [it.tool || it.method, it.server, it.key, it.client, it.peer, duration(it.ms)]), "No call runs at this moment."));
    const more = (status.calls?.count ?? 0) - calls.length;
    if (more > 0) parts.push(make("p", { class: "empty" }, `And ${more} more.`));
    parts.push(table("Refused lately", ["when", "what", "reason", "status", "from", "key", "told"],
      (status.refusals ?? []).map((it) => [new Date(it.at * 1000).toLocaleTimeString(), it.request.trim(), it.reason, it.status || "", it.peer, it.key,
        it.left_out > 0 ? `${it.message} (and ${it.left_out} more of this peer)` : it.message]), "Nothing was refused."));
    const sessions = status.sessions ?? {};
    parts.push(table("Clients", ["what", "now"], [
      ["sessions over HTTP+SSE", sessions.sse ?? 0],
      ["sessions over Streamable HTTP", sessions.streamable ?? 0],
      ["open streams", status.streams ?? 0],
    ], ""));
    parts.push(table("Bounds", ["limits.", "in use", "at most"], Object.entries(status.limits).map(([name, it]) =>
      name.endsWith("_bytes") ? [name, bytes(it.used), bytes(it.max)] : [name, it.used, it.max]), ""));
    const rejected = Object.entries(status.rejected ?? {}).filter(([, n]) => n > 0);
    parts.push(table("Turned away since the start", ["reason", "how often"], rejected, "Nothing was turned away."));
    const clashes = status.clashes ?? [];
    if (clashes.length > 0) {
      parts.push(table("Names that clash", ["server", "kind", "own name", "is offered as", "because it belongs to"],
        clashes.map((it) => [it.server, it.kind, it.own, it.offered, it.owner]), ""));
    }
  }
  const scrolled = scrollY;
  at("activity-body").replaceChildren(...parts);
  scrollTo(0, scrolled);
}

// ---- Pins

function changedPins() {
  return (status?.upstreams ?? []).filter((server) => (server.pins?.changed ?? []).length > 0);
}

async function showPins() {
  const servers = changedPins();
  const list = at("pin-list");
  if (servers.length === 0) {
    const isUsed = (status?.upstreams ?? []).some((server) => server.pins);
    list.replaceChildren(make("p", { class: "empty" }, isUsed
      ? "Everything is as it was pinned."
      : "No server is pinned. \"pin\": \"warn\", \"enforce\" or \"locked\" of a server, with a \"state_dir\", remembers what its tools were."));
    return;
  }
  const cards = await Promise.all(servers.map(async (server) => {
    try {
      const body = await (await ask(`status/pins?server=${encodeURIComponent(server.server)}`)).json();
      return pinCard(server, body.changed ?? []);
    } catch (error) {
      return make("article", { class: "card" }, make("h3", {}, server.server), make("p", { class: "trouble" }, error.message));
    }
  }));
  list.replaceChildren(...cards);
}

function pinCard(server, changes) {
  const accept = async (button, item) => {
    button.disabled = true;
    try {
      const body = JSON.stringify({ server: server.server, ...(item ? { item } : {}) });
      await ask("status/pins/accept", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      button.textContent = "Accepted";
      pinsReadAt = 0;
    } catch (error) {
      button.disabled = false;
      button.after(make("p", { class: "trouble", role: "alert" }, error.message));
    }
  };
  const all = make("button", { type: "button", class: "plain", onclick: () => accept(all, null) }, "Accept all of this server");
  return make("article", { class: "card" },
    make("header", {}, make("h3", {}, server.server), make("span", { class: "state warn" }, `${changes.length} changed, ${server.pins.pin ?? ""}`)),
    changes.map((change) => {
      const button = make("button", { type: "button", onclick: () => accept(button, change.item) }, `Accept ${change.item}`);
      return make("section", { "aria-label": change.item },
        make("h3", {}, `${change.kind} ${change.item}`),
        (change.differences ?? []).length === 0 ? make("p", { class: "quiet" }, change.told ?? "The texts were not kept.") : null,
        (change.differences ?? []).map((it) => make("div", { class: "difference" }, it.at ? make("h4", {}, it.at) : null,
          make("pre", { class: "old", tabindex: "0", "aria-label": "pinned" }, cut(it.old ?? "(absent)")),
          make("pre", { class: "new", tabindex: "0", "aria-label": "now" }, cut(it.new ?? "(absent)")))),
        make("div", { class: "buttons" }, button));
    }),
    changes.length > 1 ? make("div", { class: "buttons" }, all) : null);
}

// ---- The page

const PARTS = ["servers", "tools", "activity", "pins"];

function part() {
  const wanted = location.hash.slice(1);
  return PARTS.includes(wanted) ? wanted : "servers";
}

function show() {
  const now = part();
  for (const name of PARTS) at(name).hidden = name !== now;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${now}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (now === "tools" && tools === null) readTools().catch((error) => troubled(error.message));
  if (status) showPart();
}

function showPart() {
  const now = part();
  if (now === "servers") showServers();
  if (now === "activity") showActivity();
  if (now === "pins" && performance.now() - pinsReadAt > PIN_REFRESH_MS) {
    pinsReadAt = performance.now();
    showPins();
  }
  const n = changedPins().reduce((sum, server) => sum + server.pins.changed.length, 0);
  at("n-pins").hidden = n === 0;
  at("n-pins").textContent = String(n);
}

async function refresh() {
  if (at("key-dialog").open || document.hidden) return;
  try {
    const before = status?.upstreams?.map((it) => `${it.server} ${it.state} ${it.tools}`).join();
    status = await (await ask("status")).json();
    const servers = status.upstreams ?? [];
    const ready = servers.filter((it) => it.state === "ready").length;
    at("summary").textContent = `${status.version}, ${status.stopping ? "stopping" : `up for ${duration(status.uptime_ms)}`}, ${ready} of ${servers.length} servers ready`;
    at("forget-key").hidden = key === null;
    troubled(null);
    const now = servers.map((it) => `${it.server} ${it.state} ${it.tools}`).join();
    if (tools !== null && before !== now) await readTools();
    showPart();
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return;
    at("summary").textContent = "no connection";
    troubled(error.message);
  }
}

at("key-form").addEventListener("submit", () => {
  key = at("key").value.trim();
  at("key").value = "";
  setTimeout(refresh, 0);
});
at("key-dialog").addEventListener("cancel", (event) => {
  if (askedForKey) event.preventDefault();
});
at("forget-key").addEventListener("click", () => {
  tools = null;
  status = null;
  chosen = null;
  at("server-list").replaceChildren();
  at("tool-list").replaceChildren();
  at("tool-detail").replaceChildren(make("p", { class: "empty" }, "Choose a tool to see its schema and to try it."));
  at("activity-body").replaceChildren();
  at("pin-list").replaceChildren();
  askForKey("");
});
at("tool-filter").addEventListener("input", showTools);
addEventListener("hashchange", () => {
  pinsReadAt = 0;
  show();
  at("main").focus();
});
document.addEventListener("visibilitychange", refresh);
show();
refresh();
setInterval(refresh, REFRESH_MS);
