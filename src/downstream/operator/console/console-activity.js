// The console's activity: calls and refusals as they happen, from the stream /status/events, and
// what /status tells of the rest.

import { ask, at, bytes, count, duration, eventsOf, isSelected, make, page, refill, Refused, utc } from "./console-base.js";

const HAPPENED_MAX = 200;
const CLIENT_SHOWN_MAX = 40;
const RETRY_MS_MIN = 1000;
const RETRY_MS_MAX = 15000;

/** What has happened, the newest first: an object for each, or a text where something is missing. */
let happened = [];
/** `off`, `connecting`, `live`, or `broken` with why. */
let stream = { state: "off", why: "", everything: false, isGone: false, abort: null };
let isPaused = false;
let isDrawn = true;

// ---- The stream

/** Opens the stream unless it is open, and opens it again whenever it ends. */
export async function follow() {
  if (stream.state !== "off") return;
  const abort = new AbortController();
  stream = { state: "connecting", why: "", everything: false, isGone: false, abort };
  let retry = RETRY_MS_MIN;
  let wasLive = false;
  while (!abort.signal.aborted) {
    try {
      const response = await ask("status/events", { headers: { Accept: "text/event-stream" }, signal: abort.signal });
      for await (const event of eventsOf(response)) {
        if (abort.signal.aborted) return;
        retry = RETRY_MS_MIN;
        took(event, wasLive);
        wasLive = true;
      }
      [stream.why, stream.isGone] = ["The stream has ended.", false];
    } catch (error) {
      if (abort.signal.aborted) return;
      [stream.why, stream.isGone] = [error.message, !(error instanceof Refused)];
      if (error instanceof Refused && error.status === 401) {
        // It is opened anew when /status has answered.
        stream.state = "off";
        draw();
        return;
      }
      // Nothing but another gateway makes these better.
      if (error instanceof Refused && [403, 404, 405].includes(error.status)) retry = RETRY_MS_MAX;
    }
    stream.state = "broken";
    draw();
    await new Promise((resolve) => setTimeout(resolve, retry));
    retry = Math.min(2 * retry, RETRY_MS_MAX);
  }
}

export function forgetActivity() {
  stream.abort?.abort();
  stream = { state: "off", why: "", everything: false, isGone: false, abort: null };
  happened = [];
  at("activity-now").replaceChildren();
  at("activity-rest").replaceChildren();
  draw();
}

function took({ name, data }, wasLive) {
  if (name === "open") {
    stream.state = "live";
    stream.everything = data.everything === true;
    if (wasLive) add("The stream was interrupted. What happened meanwhile is missing here.");
    else refusedBefore();
  } else if (name === "call" || name === "refused") {
    add({ ...data, kind: name });
  } else if (name === "left_out") {
    add(`${data.count} more happened in between: a page is told of 200 a second at most.`);
  }
  draw();
}

function add(what) {
  happened.unshift(what);
  if (happened.length > HAPPENED_MAX) happened.length = HAPPENED_MAX;
}

/** Refusals that /status knows of from before the stream, and while there is none. */
function refusedBefore() {
  const known = new Set(happened.filter((it) => it.kind === "refused").map(identity));
  const old = (page.status?.refusals ?? []).map((it) => ({ ...it, kind: "refused" })).filter((it) => !known.has(identity(it)));
  if (old.length === 0) return;
  happened = [...happened, ...old].sort((a, b) => (b.at ?? 0) - (a.at ?? 0)).slice(0, HAPPENED_MAX);
}

const identity = (it) => [it.id, it.at, it.peer, it.reason, it.request].join(" ");

// ---- What has happened

const OUTCOMES = {
  ok: ["ok", "good"],
  tool_error: ["the tool reports an error", "warn"],
  client_error: ["a wrong request", "warn"],
  upstream_error: ["the server failed", "bad"],
  timeout: ["no answer in time", "bad"],
  overloaded: ["overloaded", "bad"],
  cancelled: ["cancelled", "warn"],
};

/** Why something was turned away, for people. */
const REASONS = {
  unauthorized: "no key, or a wrong one",
  missing_key: "no key",
  wrong_key: "a wrong key",
  unknown_path: "no such path",
  unknown_tool: "no such tool",
  unknown_session: "no such session",
  rate: "the key's calls are used up",
  rate_limited: "the key's calls are used up",
  origin: "a foreign Origin or Host",
  connections: "too many connections",
  overloaded: "overloaded",
  bad_request: "a malformed request",
  head_too_large: "too large headers",
  body_too_large: "too large a body",
  not_admin: "not an admin's key",
  timeout: "sent too slowly",
  not_reading: "did not read",
};

function draw() {
  const [text, kind] = {
    off: ["not connected", "warn"],
    connecting: ["connecting …", "warn"],
    live: [stream.everything ? "live" : "live, calls of this key", "good"],
    broken: [stream.isGone ? "not connected" : "not live, asked for every 2 seconds", "warn"],
  }[stream.state];
  at("live").className = `state ${kind}`;
  at("live").textContent = text;
  // That there is no answer at all stands above.
  const isWorthTelling = stream.state === "broken" && !stream.isGone;
  at("live-why").textContent = isWorthTelling ? `${stream.why} This page tries again by itself.` : "";
  at("live-why").hidden = !isWorthTelling;
  if (isPaused || !isDrawn) return;
  isDrawn = false;
  setTimeout(() => {
    isDrawn = true;
    drawList();
  }, 100);
}

function drawList() {
  if (isPaused || isSelected(at("happened"))) return;
  const wanted = at("only-failures").checked ? happened.filter((it) => it.kind !== "call" || it.outcome !== "ok") : happened;
  const list = at("happened");
  if (wanted.length === 0) {
    const none = happened.length > 0 ? "Nothing has failed or been turned away." : "Nothing has happened since this page was opened. Calls and refusals appear here by themselves.";
    list.replaceChildren(make("li", { class: "quiet" }, none));
    return;
  }
  // Whoever has scrolled down goes on reading where he is.
  const below = list.scrollTop > 0 ? list.scrollHeight - list.scrollTop : null;
  list.replaceChildren(...wanted.map((it) => (typeof it === "string" ? make("li", { class: "quiet" }, it) : row(it))));
  if (below !== null) list.scrollTop = list.scrollHeight - below;
}

/** Browsers call themselves by long names. */
const short = (client) => (client.length > CLIENT_SHOWN_MAX ? `${client.slice(0, CLIENT_SHOWN_MAX)}…` : client);

function row(it) {
  const isRefused = it.kind === "refused";
  const [outcome, kind] = isRefused
    ? [`turned away: ${REASONS[it.reason] ?? it.reason.replaceAll("_", " ")}`, "bad"]
    : OUTCOMES[it.outcome] ?? [it.outcome, "warn"];
  const what = isRefused ? it.request?.trim() || "a connection" : it.tool || it.method;
  const facts = [
    it.key ? `key ${it.key}` : null,
    it.client ? short(it.client) : null,
    !isRefused && it.server && !it.tool ? `server ${it.server}` : null,
    it.peer === "unix" ? "over the Unix socket" : `from ${it.peer}`,
    it.status ? `status ${it.status}` : null,
    it.left_out ? `${it.left_out} more like it` : null,
  ].filter(Boolean).join(" · ");
  const message = it.message ? make("p", {}, it.message) : null;
  return make("li", { "data-kind": it.kind },
    make("p", { class: "line" },
      make("time", { datetime: new Date(it.at * 1000).toISOString() }, utc(it.at * 1000)),
      make("strong", {}, what),
      make("span", { class: `state ${kind}` }, outcome),
      typeof it.ms === "number" ? make("span", { class: "quiet" }, it.ms === 0 ? "under 1 ms" : duration(it.ms)) : null),
    message,
    make("p", { class: "quiet" }, facts));
}

at("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  at("pause").setAttribute("aria-pressed", String(isPaused));
  at("pause").textContent = isPaused ? "Go on" : "Pause";
  drawList();
});
at("only-failures").addEventListener("change", drawList);

// ---- What /status tells

function table(caption, heads, rows, none) {
  if (rows.length === 0) return make("div", { class: "part" }, make("h3", {}, caption), make("p", { class: "empty" }, none));
  // Numbers, and sizes with their unit, stand below each other.
  const isNumber = (value) => typeof value === "number" || /^\d+ ([KM]i)?B$/.test(value);
  const cell = (tag, value, like) => make(tag, { class: isNumber(like) ? "number" : null, scope: tag === "th" ? "col" : null }, String(value ?? ""));
  return make("div", { class: "part" }, make("h3", {}, caption),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, make("table", {},
      make("thead", {}, make("tr", {}, heads.map((head, place) => cell("th", head, rows[0][place])))),
      make("tbody", {}, rows.map((cells) => make("tr", {}, cells.map((value) => cell("td", value, value))))))));
}

/** Limits that no key of the configuration sets. */
const FIXED_LIMITS = {
  list_waiters: "requests that wait for lists (a quarter of connections)",
  views_bytes: "lists that only some clients see (fixed)",
  lists_bytes: "lists that all see (follows from the number of servers)",
};

/** What of the activity the last answer of /status tells. */
export function showActivity() {
  const status = page.status;
  if (stream.state !== "live") {
    refusedBefore();
    draw();
  }
  if (status.limits === undefined) {
    refill(at("activity-now"));
    refill(at("activity-rest"), make("p", { class: "empty" },
      "This key sees its own calls. Those of others, the clients and the limits in use are shown to a key with \"admin\": true in api_keys."));
    return;
  }
  const calls = status.calls?.oldest ?? [];
  const more = (status.calls?.count ?? 0) - calls.length;
  refill(at("activity-now"),
    table("Running now", ["what", "server", "key", "client", "from", "for"],
      calls.map((it) => [it.tool || it.method, it.server, it.key, it.client, it.peer, duration(it.ms)]), "No call runs at this moment."),
    more > 0 ? make("p", { class: "quiet" }, `${count(more, "more call")} run${more === 1 ? "s" : ""}.`) : null);
  const sessions = status.sessions ?? {};
  const rejected = Object.entries(status.rejected ?? {}).filter(([, n]) => n > 0);
  const clashes = status.clashes ?? [];
  refill(at("activity-rest"),
    table("Clients", ["what", "now"], [
      ["sessions over HTTP+SSE", sessions.sse ?? 0],
      ["sessions over Streamable HTTP", sessions.streamable ?? 0],
      ["open streams, with those of this page", status.streams ?? 0],
    ], ""),
    table("Limits", ["key of limits, or what is limited", "in use", "at most"], Object.entries(status.limits).map(([name, it]) => {
      const [shown, unit] = [FIXED_LIMITS[name] ?? name, name.endsWith("_bytes") ? bytes : (n) => n];
      return [shown, unit(it.used), unit(it.max)];
    }), ""),
    table("Turned away since the start", ["reason", "how often"], rejected.map(([reason, n]) => [REASONS[reason] ?? reason, n]), "Nothing was turned away."),
    clashes.length > 0 ? table("Names that clash", ["server", "kind", "own name", "is offered as", "because it belongs to"],
      clashes.map((it) => [it.server, it.kind, it.own, it.offered, it.owner]), "") : null);
}
