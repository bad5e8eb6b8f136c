// What all parts of the console use: elements, requests with the key, times. Everything that a
// server says is written as text, never as HTML.

const TEXT_SHOWN_MAX = 200000;
const ANSWER_TIMEOUT_MS = 15000;

/** What the parts share: the key, which is kept in memory alone, and the last answer of /status. */
export const page = { key: null, status: null };

export const at = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function cut(text) {
  return text.length > TEXT_SHOWN_MAX
    ? `${text.slice(0, TEXT_SHOWN_MAX)}\n… ${text.length - TEXT_SHOWN_MAX} more characters`
    : text;
}

/** Text as a block that the keyboard can scroll. */
export function block(text, attributes = {}) {
  return make("pre", { tabindex: "0", ...attributes }, cut(text));
}

/** Whether text of an element is selected. */
export function isSelected(element) {
  const selection = getSelection();
  return selection !== null && !selection.isCollapsed && element.contains(selection.anchorNode);
}

/** Whether somebody works in an element at the moment: it has the focus, or text of it is selected. */
function isInUse(element) {
  return element.contains(document.activeElement) || isSelected(element);
}

/** Gives an element other children, unless somebody works in it. */
export function refill(element, ...children) {
  if (!isInUse(element)) element.replaceChildren(...children.flat().filter((child) => child !== null));
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The gateway does not answer at all. */
export class NoAnswer extends Error {}

/** A request to the gateway that this script came from, with the key if there is one. */
export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  const { key } = page;
  if (key !== null) headers.set("Authorization", `Bearer ${key}`);
  const signal = options.signal ?? AbortSignal.timeout(ANSWER_TIMEOUT_MS);
  let response;
  try {
    // Beside this script, whatever path a proxy serves the gateway under.
    response = await fetch(new URL(path, import.meta.url), { ...options, signal, headers, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new NoAnswer("The gateway does not answer. Check that it runs, and that this browser reaches it.");
  }
  if (response.ok) return response;
  let message = `The gateway answered with status ${response.status} ${response.statusText}.`;
  try {
    message = (await response.json()).error?.message ?? message;
  } catch { /* It is not JSON; the status says enough. */ }
  // Several may be refused at once, and the first says why.
  if (response.status === 401 && !at("key-dialog").open) {
    askForKey(key === null ? "" : "The gateway does not accept this key. Check that it is whole, and that it still stands in api_keys.");
  }
  throw new Refused(response.status, message);
}

export function askForKey(why) {
  page.key = null;
  at("summary").textContent = "waits for a key";
  at("forget-key").hidden = true;
  at("key-why").hidden = why === "";
  at("key-why").textContent = why;
  if (!at("key-dialog").open) at("key-dialog").showModal();
}

/** The server-sent events of an answer, as they come. */
export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const events = rest.split(/\r?\n\r?\n/);
    rest = events.pop();
    for (const event of events) {
      const lines = event.split(/\r?\n/);
      const of = (field) => lines.filter((line) => line.startsWith(`${field}:`)).map((line) => line.slice(field.length + 1).replace(/^ /, ""));
      const data = of("data").join("\n");
      if (data !== "") yield { name: of("event")[0] ?? "message", data: JSON.parse(data) };
    }
  }
}

export function duration(ms) {
  const seconds = Math.round(ms / 1000);
  if (ms < 1000) return `${ms < 10 ? Number(ms.toFixed(2)) : Math.round(ms)} ms`;
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

/** A time as the log has it: UTC, 24 hours; the day only where it is another one than today. */
export function utc(ms) {
  const text = new Date(ms).toISOString();
  const [day, time] = [text.slice(0, 10), `${text.slice(11, 19)}Z`];
  return day === new Date().toISOString().slice(0, 10) ? time : `${day} ${time}`;
}

/** That something is on its way. */
export function loading() {
  return make("p", { class: "empty", "data-loading": "" }, "Loading…");
}

export function bytes(n) {
  if (n < 10240) return `${n} B`;
  return n < 10485760 ? `${Math.round(n / 1024)} KiB` : `${Math.round(n / 1048576)} MiB`;
}

/** One of something, or several. */
export function count(n, noun) {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}
