// The console: one page over /status, /status/events, the REST endpoints and stateless MCP calls.
// Here are its servers and pins, and when it asks for what.

import { follow, forgetActivity, showActivity } from "./console-activity.js";
import { ask, askForKey, at, block, count, duration, loading, make, page, refill, Refused, utc } from "./console-base.js";
import { areToolsRead, forgetTools, readTools, showTools } from "./console-tools.js";

const REFRESH_MS = 2000;
const PIN_REFRESH_MS = 10000;

let answeredAt = null;
let isAsking = false;
let pinsReadAt = -Infinity;
let nPinsShown = 0;
let nPinReadings = 0;

function troubled(text) {
  if (at("trouble").textContent === (text ?? "")) return;
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

/** What can be done about a failure. */
function advice(server) {
  const isAdmin = page.status.limits !== undefined;
  if (server.state === "needs_sign_in") {
    if (!isAdmin) return "Somebody must sign in at this server first: an admin of this gateway can.";
    return signsIn(server) ? null : "Each user signs in for themselves: their client leads them there when it first calls.";
  }
  if (!server.last_failure || server.state === "ready") return null;
  if (server.last_failure.advice) return `What to do: ${server.last_failure.advice}`;
  return !isAdmin ? "Whoever runs this gateway can tell more; an admin's key is shown what to do." : null;
}

/** True if an admin can sign in at the server for all who use the gateway. */
function signsIn(server) {
  return page.status.limits !== undefined && typeof server.sign_in === "string";
}

/** What came of the last click on a button to sign in, by server; it outlives the cards, which are made anew. */
const signIns = new Map();

async function signIn(name) {
  // A tab that is opened only after the answer would be taken for one that nobody wanted.
  const tab = open("", "_blank");
  try {
    const answer = await ask("status/sign-in", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ server: name }) });
    const { url } = await answer.json();
    signIns.set(name, { url });
    if (tab) {
      tab.opener = null;
      tab.location = url;
    }
  } catch (error) {
    tab?.close();
    signIns.set(name, { message: error.message });
  }
  at("server-list").querySelector(`article[data-server="${CSS.escape(name)}"] .sign-in`)?.replaceWith(signInPart(page.status.upstreams.find((it) => it.server === name)));
}

/** Why somebody must sign in, without the command that stands beside it. */
function reason(server) {
  const { stage, message } = server.last_failure ?? {};
  return stage === "authorization" ? message.split("; run: ")[0] : "nobody is signed in";
}

/** Whether a failure says no more than the part about the sign-in does. */
function isOfSignIn(server) {
  return signsIn(server) && server.last_failure?.stage === "authorization" && ["needed", "signed_in"].includes(server.sign_in);
}

/** The button to sign in, and what came of it. */
function signInPart(server) {
  const isWanted = server.state === "needs_sign_in" || server.sign_in === "needed";
  const isDone = server.sign_in === "signed_in" && !isWanted;
  if (isDone) signIns.delete(server.server);
  const told = signIns.get(server.server);
  const button = make("button", { type: "button", class: isWanted ? null : "plain", onclick: () => signIn(server.server) },
    isDone ? "Sign in with another account" : "Sign in");
  return make("div", { class: "sign-in" },
    isWanted ? make("p", {}, `Somebody must sign in (${reason(server)}), and does so for all who use this gateway; `, make("code", {}, `trunkline login ${server.server}`), " does the same.") : null,
    make("div", { class: "buttons" }, button),
    told?.url ? make("p", { role: "status" }, "The page to sign in is in a new tab. If there is none, ", make("a", { href: told.url, target: "_blank", rel: "noopener noreferrer" }, "open it here"), ".") : null,
    told?.message ? make("p", { class: "trouble", role: "alert" }, told.message) : null);
}

function serverCard(server) {
  const [word, kind] = STATES[server.state] ?? [server.state, "warn"];
  const facts = [];
  const fact = (name, value) => {
    if (value !== null && value !== undefined && value !== "") facts.push(make("dt", {}, name), make("dd", {}, String(value)));
  };
  if (server.starting_ms) fact("Starting for", duration(server.starting_ms));
  if (server.sign_in === "signed_in") fact("Signed in", server.signed_in_until ? `the token ends at ${utc(server.signed_in_until * 1000)}` : "yes");
  if (server.sign_in === "under_way") fact("Signed in", "a sign-in is under way");
  if (server.down_since) fact("Down since", utc(server.down_since * 1000));
  if (typeof server.next_try_ms === "number") fact("Next try", server.next_try_ms > 0 ? `in ${duration(server.next_try_ms)}` : "now");
  const info = server.server_info;
  fact("It is", info ? [info.title ?? info.name, info.version].filter(Boolean).join(" ") : null);
  fact("Speaks", [server.transport, server.era, server.revision].filter(Boolean).join(", "));
  fact("Latency", typeof server.latency_ms === "number" ? duration(server.latency_ms) : null);
  const counts = [["tool", server.tools], ["prompt", server.prompts], ["resource", server.resources], ["resource template", server.resource_templates]];
  if (server.state === "ready") {
    fact("Offers", counts.filter(([, n]) => n > 0).map(([what, n]) => count(n, what)).join(", ") || "nothing");
  }
  if (server.in_flight || server.waiting) fact("Calls", `${server.in_flight ?? 0} running, ${server.waiting ?? 0} waiting`);
  if (server.restarts) fact("Restarts", server.restarts);
  const failure = server.last_failure;
  const isOver = server.state === "ready";
  const hint = advice(server);
  const unread = Object.entries(server.unread_lists ?? {});
  const stderr = server.stderr ?? [];
  return make("article", { class: "card", "data-server": server.server },
    make("header", {}, make("h3", {}, server.server), make("span", { class: `state ${kind}` }, word)),
    server.description ? make("p", { class: "quiet description" }, server.description) : null,
    make("dl", {}, facts),
    failure && !isOfSignIn(server) ? make("div", { class: "failure" },
      make("p", {}, make("strong", {}, `${isOver ? "Last failure" : "Failure"} (${failure.stage}), ${duration((failure.seconds_ago ?? 0) * 1000)} ago: `), failure.message),
      hint ? make("p", {}, hint) : null) : null,
    signsIn(server) ? signInPart(server) : null,
    unread.map(([list, it]) => make("div", { class: "failure" },
      make("p", {}, make("strong", {}, `Its list of ${list} cannot be read: `), it.last_failure.message),
      make("p", {}, `The gateway tries again in ${duration(it.next_try_ms ?? 0)}. The server's own log may say why it fails.`))),
    stderr.length > 0 ? make("details", {}, make("summary", {}, `What it wrote to standard error (${stderr.length})`),
      block(stderr.join("\n"))) : null);
}

function showServers() {
  const list = at("server-list");
  const servers = page.status.upstreams ?? [];
  if (servers.length === 0) {
    list.replaceChildren(page.status.limits === undefined
      ? make("p", { class: "empty" }, "This key may use no server. Its entry in api_keys says which it may use, under \"servers\" and \"tools\".")
      : make("div", { class: "empty" }, "No servers are configured. Add one to config.json under \"mcp_servers\", such as the built-in one, and run trunkline reload:",
        block("\"mcp_servers\": {\n  \"demo\": { \"command\": \"trunkline\", \"args\": [\"demo\"] }\n}")));
    return;
  }
  const before = new Map([...list.querySelectorAll("article")].map((it) => [it.dataset.server, it]));
  if ([...before.keys()].join() !== servers.map((it) => it.server).join()) {
    list.replaceChildren(...servers.map(serverCard));
    return;
  }
  for (const server of servers) {
    const card = before.get(server.server);
    const now = serverCard(server);
    if (card.querySelector("details[open]")) now.querySelector("details")?.setAttribute("open", "");
    // Also of a card that somebody works in.
    card.querySelector(".state").replaceWith(now.querySelector(".state").cloneNode(true));
    refill(card, [...now.children]);
  }
}

// ---- Pins

function changedPins() {
  return (page.status?.upstreams ?? []).filter((server) => (server.pins?.changed ?? []).length > 0);
}

async function showPins() {
  const servers = changedPins();
  const list = at("pin-list");
  if (servers.length === 0) {
    const isUsed = (page.status?.upstreams ?? []).some((server) => server.pins);
    list.replaceChildren(make("p", { class: "empty" }, isUsed || page.status?.limits === undefined
      ? "Nothing to review: everything is as it was pinned."
      : "No server is pinned. To be told when a server changes its tools, give it \"pin\": \"warn\" (or \"enforce\", which withholds what has changed), and set a \"state_dir\"."));
    return;
  }
  // What was read before stays until it is read again.
  if (list.querySelector("article") === null) list.replaceChildren(loading());
  const reading = ++nPinReadings;
  const cards = await Promise.all(servers.map(async (server) => {
    try {
      const body = await (await ask(`status/pins?server=${encodeURIComponent(server.server)}`)).json();
      return pinCard(server, body.changed ?? []);
    } catch (error) {
      const message = error instanceof Refused && error.status === 403
        ? `${count(server.pins.changed.length, "item")} changed. Only an admin's key is shown what, and may accept it.`
        : error.message;
      return make("article", { class: "card" }, make("h3", {}, server.server), make("p", { class: "trouble" }, message));
    }
  }));
  // An answer that is overtaken by a later one, or by another key, is of before.
  if (reading !== nPinReadings) return;
  if (list.querySelector("[data-loading]") !== null) list.replaceChildren(...cards);
  else refill(list, cards);
}

/** Has the pins read at once, whatever was read before. */
function openPins() {
  pinsReadAt = -Infinity;
  at("pin-told").textContent = "";
  at("pin-list").replaceChildren(loading());
}

/** What becomes of what has changed. */
const PINS = {
  warn: "What has changed is still offered (\"pin\": \"warn\").",
  enforce: "What has changed is withheld until it is accepted (\"pin\": \"enforce\").",
  locked: "What has changed or is new is withheld until it is accepted (\"pin\": \"locked\").",
};

function pinCard(server, changes) {
  const accept = async (button, item) => {
    button.disabled = true;
    try {
      const body = JSON.stringify({ server: server.server, ...(item ? { item } : {}) });
      await ask("status/pins/accept", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      at("pin-told").textContent = `Accepted: ${item ?? "all"} of ${server.server}. The gateway takes it up in a moment.`;
      at("pin-told").focus();
      button.textContent = "Accepted";
      pinsReadAt = -Infinity;
    } catch (error) {
      button.disabled = false;
      button.after(make("p", { class: "trouble", role: "alert" }, error.message));
    }
  };
  const all = make("button", { type: "button", class: "plain", onclick: () => accept(all, null) }, "Accept all of this server");
  return make("article", { class: "card" },
    make("header", {}, make("h3", {}, `Server ${server.server}`), make("span", { class: "state warn" }, `${changes.length} changed`)),
    make("p", { class: "quiet" }, PINS[server.pins.pin] ?? ""),
    changes.map((change) => {
      const button = make("button", { type: "button", onclick: () => accept(button, change.item) }, `Accept ${change.item}`);
      return make("section", { "aria-label": change.item },
        make("h4", {}, `The ${change.kind} ${change.item}`),
        (change.differences ?? []).length === 0 ? make("p", { class: "quiet" }, change.told ? `There is nothing to compare: ${change.told}.` : "There is nothing to compare: the texts were not kept.") : null,
        (change.differences ?? []).map((it) => make("div", { class: "difference" }, it.at ? make("h5", { class: "where" }, it.at) : null,
          make("div", {}, make("h5", {}, "As it was pinned"), block(it.old ?? "(absent)", { class: "old" })),
          make("div", {}, make("h5", {}, "As it is now"), block(it.new ?? "(absent)", { class: "new" })))),
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
  if (now === "tools" && !areToolsRead() && page.status) readTools().catch((error) => troubled(error.message));
  if (page.status) showPart();
}

function showPart() {
  const now = part();
  if (now === "servers") showServers();
  if (now === "activity") showActivity();
  const n = changedPins().reduce((sum, server) => sum + server.pins.changed.length, 0);
  // One that is accepted is looked for until it is gone.
  const isDue = performance.now() - pinsReadAt > PIN_REFRESH_MS || n !== nPinsShown;
  if (now === "pins" && isDue) {
    pinsReadAt = performance.now();
    nPinsShown = n;
    showPins();
  }
  at("n-pins").hidden = n === 0;
  at("n-pins").textContent = String(n);
}

/** That there is no contact: what is shown is of before. */
function lost(error) {
  at("summary").textContent = "no connection";
  const shown = answeredAt === null ? "" : ` What is shown is as it was at ${utc(answeredAt)}.`;
  troubled(`${error.message} This page asks again every 2 seconds.${shown}`);
  document.body.classList.toggle("lost", true);
}

async function refresh() {
  if (isAsking || at("key-dialog").open || document.hidden) return;
  isAsking = true;
  try {
    const look = (status) => (status?.upstreams ?? []).map((it) => `${it.server} ${it.state} ${it.tools}`).join();
    const before = look(page.status);
    const status = await (await ask("status")).json();
    page.status = status;
    answeredAt = Date.now();
    document.body.classList.toggle("lost", false);
    const servers = status.upstreams ?? [];
    const ready = servers.filter((it) => it.state === "ready").length;
    const life = status.stopping ? "is stopping" : `up for ${duration(status.uptime_ms)}`;
    at("summary").textContent = `version ${status.version}, ${life}, ${servers.length === 0 ? "no servers" : `${ready} of ${count(servers.length, "server")} ready`}`;
    at("forget-key").hidden = page.key === null;
    troubled(null);
    follow();
    const isWanted = areToolsRead() ? before !== look(status) : part() === "tools";
    if (isWanted) await readTools();
    showPart();
  } catch (error) {
    if (!(error instanceof Refused && error.status === 401)) lost(error);
  } finally {
    isAsking = false;
  }
}

at("key-form").addEventListener("submit", () => {
  forgetAll();
  page.key = at("key").value.trim();
  at("key").value = "";
  setTimeout(refresh, 0);
});
at("key-dialog").addEventListener("cancel", (event) => event.preventDefault());
at("forget-key").addEventListener("click", () => {
  forgetAll();
  askForKey("");
});
at("tool-filter").addEventListener("input", showTools);
addEventListener("hashchange", () => {
  openPins();
  show();
  at("main").focus();
});
document.querySelector("nav a[href='#pins']").addEventListener("click", () => {
  // Without this, a second click would show what was read at the first.
  if (part() !== "pins") return;
  openPins();
  show();
});
document.addEventListener("visibilitychange", refresh);
at("server-list").replaceChildren(loading());
openPins();
show();
refresh();
setInterval(refresh, REFRESH_MS);

/** Nothing that one key has been shown is left for the next. */
function forgetAll() {
  page.key = null;
  page.status = null;
  answeredAt = null;
  pinsReadAt = -Infinity;
  signIns.clear();
  forgetTools();
  forgetActivity();
  nPinReadings++;
  for (const id of ["server-list", "pin-list"]) at(id).replaceChildren(loading());
  at("n-pins").hidden = true;
  at("pin-told").textContent = "";
}
