#!/usr/bin/env node
// The console in a real browser: console.mjs GATEWAY_BINARY MODULES [SCREENSHOTS]
//
// MODULES is a folder whose node_modules has playwright-core and axe-core. The browser is Debian's
// `chromium`, or what $CHROMIUM names. SCREENSHOTS is where pictures of the page are put.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { signingIn } from "./fixture/signing_in.mjs";

const [binary, modules, pictures] = process.argv.slice(2).map((it) => resolve(it));
if (!modules) {
  console.error("usage: console.mjs GATEWAY_BINARY MODULES [SCREENSHOTS]");
  process.exit(2);
}
const require = createRequire(join(modules, "any.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const HERE = dirname(fileURLToPath(import.meta.url));
const PATIENCE = 20000;
const [ADMIN, USER, SLOW] = ["an-admins-key-of-tests", "a-users-key-of-tests-1", "a-key-with-one-call-a-minute"];
const work = mkdtempSync(join(tmpdir(), "trunkline-console-"));
const results = { passed: 0, failed: 0 };
const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));

function findBrowser() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
    for (const folder of process.env.PATH.split(delimiter)) {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch { /* not here */ }
    }
  }
  throw new Error("There is no chromium: apt-get install chromium");
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** A gateway on a port of its own; `stop` ends it. */
async function gateway(name, port, config) {
  const folder = join(work, name);
  mkdirSync(folder, { recursive: true });
  const file = join(folder, "config.json");
  writeFileSync(file, JSON.stringify(config));
  const child = spawn(binary, ["serve", "--config", file, "--listen", `127.0.0.1:${port}`], { stdio: ["ignore", "ignore", "inherit"] });
  children.add(child);
  child.once("exit", () => children.delete(child));
  const base = `http://127.0.0.1:${port}`;
  await until(`${name} answers`, async () => (await fetch(`${base}/healthz`).catch(() => null))?.ok);
  return {
    base,
    reload: (changed) => {
      writeFileSync(file, JSON.stringify(changed));
      child.kill("SIGHUP");
    },
    stop: async () => {
      child.kill("SIGTERM");
      if (child.exitCode === null) await once(child, "exit");
    },
  };
}

async function until(what, isSo, patience = PATIENCE) {
  const deadline = Date.now() + patience;
  while (!(await isSo())) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${patience} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function assert(isSo, what) {
  if (!isSo) throw new Error(what);
}

async function check(name, steps) {
  try {
    await steps();
    results.passed++;
    console.log(`ok      console ${name}`);
  } catch (error) {
    results.failed++;
    await picture(page, `failed-${name.replaceAll(/[^a-z]+/g, "-")}`);
    console.log(`FAILED  console ${name}: ${error.message}`);
  }
}

const browser = await chromium.launch({
  executablePath: findBrowser(),
  // Nothing of it asks anybody but the gateway.
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

/** A page whose complaints are kept: those of the content security policy, and errors of scripts. */
async function open(url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  // By the protocol of the debugger, which the page's policy does not hold.
  await context.addInitScript({ content: axe });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.complaints = [];
  page.on("console", (message) => {
    // A refusal and a gateway that is stopped are what is tested.
    const isExpected = /status of (401|403|404)|ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE/.test(message.text());
    if (["error", "warning"].includes(message.type()) && !isExpected) page.complaints.push(message.text());
  });
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  await page.goto(url);
  return page;
}

const see = (page, text, within = "body") => page.locator(within).getByText(text).first().waitFor();
const go = (page, part) => page.locator(`nav a[href="#${part}"]`).click();

async function giveKey(page, key) {
  await page.locator("#key").fill(key);
  await page.locator("#key").press("Enter");
}

async function chooseTool(page, name) {
  await go(page, "tools");
  await page.locator("#tool-list button", { hasText: name }).first().click();
  await page.locator("#tool-detail form").waitFor();
}

async function picture(page, name) {
  if (!pictures) return;
  mkdirSync(pictures, { recursive: true });
  await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
}

/** Nothing wider than the window, and nothing that axe-core calls serious. */
async function inspect(page, name) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert(wide <= 0, `${name} is ${wide} px wider than the window`);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const serious = violations.filter((it) => ["serious", "critical"].includes(it.impact));
  const told = serious.map((it) => `${it.id}: ${it.nodes.map((node) => `${node.target} ${node.failureSummary ?? ""}`).join(", ")}`);
  assert(told.length === 0, `${name}: ${told.join("; ")}`);
}

const [port, absent] = [await freePort(), await freePort()];
const fixture = { command: process.execPath, args: [join(HERE, "fixture/console_server.mjs")], pin: "enforce" };
const config = {
  state_dir: join(work, "state"),
  api_keys: [
    { name: "admin", key: ADMIN, admin: true },
    { name: "user", key: USER, servers: ["demo"] },
    { name: "slow", key: SLOW, calls_per_minute: 1 },
  ],
  mcp_servers: {
    fixture: { ...fixture, description: "A server with a tool of every kind." },
    demo: { command: "trunkline", args: ["demo"] },
    gone: { url: `http://127.0.0.1:${absent}/mcp`, transport: "http" },
  },
};
let main = await gateway("main", port, config);
const rest = (key, path, body) => fetch(main.base + path, {
  method: body ? "POST" : "GET",
  headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
  body: body ? JSON.stringify(body) : undefined,
});
await until("two servers are ready", async () => {
  const { upstreams } = await (await rest(ADMIN, "/status")).json();
  return upstreams.filter((it) => it.state === "ready").length === 2;
});
const page = await open(`${main.base}/`);

await check("a missing and a wrong key are told apart, and the key is in memory alone", async () => {
  await page.locator("#key-dialog[open]").waitFor();
  assert(!(await page.locator("#key-why").isVisible()), "a first question needs no reason");
  await picture(page, "key");
  await giveKey(page, "a-wrong-key-of-the-tests");
  await see(page, "does not accept this key", "#key-dialog");
  await giveKey(page, ADMIN);
  await see(page, "2 of 3 servers ready", "header");
  const kept = await page.evaluate(async () => [localStorage.length, sessionStorage.length, document.cookie, (await indexedDB.databases()).length, (await caches.keys()).length, location.href].join());
  assert(!kept.includes(ADMIN) && kept.startsWith("0,0,,0,0,"), `something is kept: ${kept}`);
  await page.reload();
  await page.locator("#key-dialog[open]").waitFor();
  await giveKey(page, ADMIN);
  await see(page, "2 of 3 servers ready", "header");
});

await check("servers have their state, and one that is down says what to do", async () => {
  await see(page, "ready", "[data-server=demo] header");
  await see(page, "stdio, legacy", "[data-server=demo]");
  await see(page, "console-fixture 1.0", "[data-server=fixture]");
  await see(page, `What to do: nothing listens at 127.0.0.1:${absent}`, "[data-server=gone]");
});

await check("a form is made of the schema, and what it sends is what was typed", async () => {
  await chooseTool(page, "fixture-kinds");
  await page.getByRole("button", { name: "Call" }).click();
  const field = (name) => page.locator(`#argument-${name}`);
  await field("count").fill("many");
  await page.getByRole("button", { name: "Call" }).click();
  await see(page, "count must be a number", "#tool-result");
  assert(await field("count").evaluate((it) => it === document.activeElement), "the wrong field has no focus");
  await field("text").fill("häagen \"dazs\"");
  await field("count").fill("3");
  await field("wanted").selectOption("true");
  await field("colour").selectOption({ label: "green" });
  await field("tags").fill("[\"a\", \"b\"");
  await page.getByRole("button", { name: "Call" }).click();
  await see(page, "tags must be JSON", "#tool-result");
  await field("tags").fill("[\"a\", \"b\"]");
  await field("options").fill("{\"deep\": {\"er\": null}}");
  await page.getByRole("button", { name: "Call" }).click();
  await see(page, "The tool has answered", "#tool-result");
  const told = JSON.parse(await page.locator("#tool-result pre").first().textContent());
  const wanted = { text: "häagen \"dazs\"", count: 3, ratio: 0.5, wanted: true, colour: "green", tags: ["a", "b"], options: { deep: { er: null } } };
  assert(JSON.stringify(told) === JSON.stringify(wanted), `it was called with ${JSON.stringify(told)}`);
});

await check("progress is shown while a tool runs, and a call can be cancelled", async () => {
  await chooseTool(page, "fixture-steps");
  await page.getByRole("button", { name: "Call" }).click();
  await see(page, /step [1-5]/, "#tool-result");
  assert((await page.locator("#tool-result progress").getAttribute("max")) === "5", "the bar has no end");
  await see(page, "five steps", "#tool-result");
  await page.locator("#argument-pause_ms").fill("60000");
  await page.getByRole("button", { name: "Call" }).click();
  await see(page, "running", "#tool-result");
  await page.getByRole("button", { name: "Cancel" }).click();
  await see(page, "The call was cancelled", "#tool-result");
});

await check("calls and refusals of others appear by themselves", async () => {
  await go(page, "activity");
  await page.locator("#live", { hasText: /^live$/ }).waitFor();
  await rest(SLOW, "/mcp/tools/call", { name: "demo-add", arguments: { a: 1, b: 2 } });
  await see(page, "demo-add", "#happened");
  await rest(SLOW, "/mcp/tools/call", { name: "demo-add", arguments: { a: 1, b: 2 } });
  await see(page, /turned away: the key's calls are used up/, "#happened");
  await rest("a-wrong-key-of-the-tests", "/status");
  await see(page, "turned away: a wrong key", "#happened");
  await page.locator("#only-failures").check();
  assert((await page.locator("#happened [data-kind=call]").count()) === 0 || !(await page.locator("#happened").textContent()).includes("demo-addok"), "what went well is not left out");
  await page.locator("#only-failures").uncheck();
  await see(page, "demo-add", "#happened");
});

await check("tables break no word, times are those of the log, and fixed limits are told as such", async () => {
  for (const width of [1200, 390]) {
    const other = await open(`${main.base}/`, { viewport: { width, height: 900 }, locale: "en-US", timezoneId: "America/New_York" });
    await giveKey(other, ADMIN);
    await see(other, "2 of 3 servers ready", "header");
    await go(other, "activity");
    const slow = rest(ADMIN, "/mcp/tools/call", { name: "demo-slow", arguments: { seconds: 6 } });
    await see(other, "demo-slow", "#activity-now");
    const broken = await other.evaluate(() => [...document.querySelectorAll("#activity td, #activity th")].flatMap((cell) => {
      const text = cell.firstChild;
      if (text?.nodeType !== Node.TEXT_NODE) return [];
      return [...text.data.matchAll(/[^\s/-]+/g)].filter((word) => {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        return new Set([...range.getClientRects()].map((it) => Math.round(it.top))).size > 1;
      }).map((word) => word[0]);
    }));
    assert(broken.length === 0, `words are broken at ${width} px: ${broken.join(", ")}`);
    await see(other, "lists that only some clients see (fixed)", "#activity-rest");
    await picture(other, `activity-running-${width}`);
    await inspect(other, `activity at ${width} px`);
    await slow;
    await see(other, "demo-slow", "#happened");
    const time = other.locator("#happened time").first();
    const [shown, meant] = [await time.textContent(), await time.getAttribute("datetime")];
    assert(`${meant.slice(11, 19)}Z` === shown, `${shown} is not ${meant}`);
    await other.context().close();
  }
});

await check("a changed tool is shown as it was beside as it is, and accepted", async () => {
  await rest(ADMIN, "/mcp/tools/call", { name: "fixture-change" });
  await page.locator("#n-pins", { hasText: "1" }).waitFor();
  // It is asked for at the click, and until it is there the page says so.
  let answer;
  const held = new Promise((resolve) => { answer = resolve; });
  await page.route("**/status/pins?*", async (route) => {
    await held;
    await route.continue();
  });
  const asked = page.waitForRequest("**/status/pins?*", { timeout: 1500 });
  await go(page, "pins");
  await asked;
  await see(page, "Loading…", "#pin-list");
  answer();
  await see(page, "Tells the weather.", "#pin-list .old");
  await see(page, "id_rsa", "#pin-list .new");
  await page.unroute("**/status/pins?*");
  const [old, now] = await Promise.all([".old", ".new"].map((it) => page.locator(`#pin-list ${it}`).boundingBox()));
  assert(Math.abs(old.y - now.y) < 2 && now.x > old.x, "old and new are not side by side");
  await picture(page, "pins-light-1280-changed");
  await inspect(page, "pins");
  await page.getByRole("button", { name: "Accept weather" }).click();
  await see(page, "Accepted: weather of fixture", "#pins");
  await see(page, "everything is as it was pinned", "#pins");
});

await check("the keyboard alone leads from the key to a call's result", async () => {
  const other = await open(`${main.base}/`);
  const tab = async (isThere) => {
    for (let n = 0; n < 60; n++) {
      await other.keyboard.press("Tab");
      if (await other.evaluate(isThere)) return;
    }
    throw new Error(`Tab does not lead to ${isThere}`);
  };
  await other.locator("#key-dialog[open]").waitFor();
  await other.keyboard.type(ADMIN);
  await other.keyboard.press("Enter");
  await see(other, "2 of 3 servers ready", "header");
  await tab(() => document.activeElement.hash === "#tools");
  await other.keyboard.press("Enter");
  await other.locator("#tool-list button").first().waitFor();
  await tab(() => document.activeElement.textContent === "demo-echo");
  await other.keyboard.press("Enter");
  await tab(() => document.activeElement.id === "argument-message");
  await other.keyboard.type("by keyboard");
  await tab(() => document.activeElement.type === "submit");
  await other.keyboard.press("Enter");
  await see(other, "by keyboard", "#tool-result pre");
  await other.context().close();
});

await check("a key sees its own servers and calls and nothing of others", async () => {
  const other = await open(`${main.base}/`);
  await giveKey(other, USER);
  await see(other, "1 of 1 server ready", "header");
  await go(other, "activity");
  await see(other, "live, calls of this key", "#activity");
  await rest(ADMIN, "/mcp/tools/call", { name: "demo-echo", arguments: { message: "m" } });
  await rest(USER, "/mcp/tools/call", { name: "demo-time" });
  await see(other, "demo-time", "#happened");
  assert(!(await other.locator("#happened").textContent()).includes("demo-echo"), "it sees another key's call");
  await see(other, "This key sees its own calls", "#activity");
  await picture(other, "activity-light-1280-of-a-key");
  assert(other.complaints.length === 0, other.complaints.join("; "));
  await other.context().close();
});

for (const colorScheme of ["light", "dark"]) {
  for (const width of [390, 1280]) {
    await check(`each part fits ${width} px, ${colorScheme}, with nothing serious from axe-core`, async () => {
      const other = await open(`${main.base}/`, { colorScheme, viewport: { width, height: 900 } });
      const name = (part) => `${part}-${colorScheme}-${width}`;
      await other.locator("#key-dialog[open]").waitFor();
      await inspect(other, "the dialog");
      await giveKey(other, ADMIN);
      await see(other, "2 of 3 servers ready", "header");
      await see(other, "What to do", "#servers");
      for (const part of ["servers", "tools", "activity", "pins"]) {
        await go(other, part);
        if (part === "tools") {
          await chooseTool(other, "fixture-kinds");
          await other.locator("#argument-text").fill("some text");
          await other.getByRole("button", { name: "Call" }).click();
          await see(other, "The tool has answered", "#tool-result");
        }
        if (part === "activity") {
          rest("a-wrong-key-of-the-tests", "/status");
          rest(ADMIN, "/mcp/tools/call", { name: "gone-any" });
          rest(ADMIN, "/mcp/tools/call", { name: "demo-fail", arguments: {} });
          await see(other, "a wrong key", "#happened");
          await see(other, "demo-fail", "#happened");
          await see(other, "Limits", "#activity");
        }
        if (part === "pins") await see(other, "everything is as it was pinned", "#pins");
        await inspect(other, name(part));
        await picture(other, name(part));
      }
      assert(other.complaints.length === 0, other.complaints.join("; "));
      await other.context().close();
    });
  }
}

await check("a gateway that stops is told of, and when it is back the page goes on", async () => {
  await go(page, "activity");
  await main.stop();
  await see(page, "The gateway does not answer", "#trouble");
  await see(page, "asks again every 2 seconds", "#trouble");
  await picture(page, "stopped-light-1280");
  await inspect(page, "stopped");
  main = await gateway("main", port, config);
  await page.locator("#trouble").waitFor({ state: "hidden" });
  await page.locator("#live", { hasText: /^live$/ }).waitFor();
  await rest(ADMIN, "/mcp/tools/call", { name: "demo-echo", arguments: { message: "again" } });
  await see(page, "What happened meanwhile is missing", "#happened");
});

await check("without the stream it asks every 2 seconds, and says so", async () => {
  const other = await open(`${main.base}/`);
  await other.route("**/status/events", (route) => route.fulfill({ status: 404, body: "" }));
  await giveKey(other, ADMIN);
  await go(other, "activity");
  await see(other, "not live, asked for every 2 seconds", "#activity");
  await fetch(`${main.base}/mcp/tools/list`, { headers: { "X-Api-Key": "a-wrong-key-of-the-tests" } });
  await see(other, "GET /mcp/tools/list", "#happened");
  await other.context().close();
});

await check("a key that a reload takes away is asked for anew", async () => {
  const other = await open(`${main.base}/`);
  await giveKey(other, USER);
  await see(other, "1 of 1 server ready", "header");
  main.reload({ ...config, api_keys: config.api_keys.filter((it) => it.name !== "user") });
  await other.locator("#key-dialog[open]").waitFor();
  await see(other, "does not accept this key", "#key-dialog");
  // Nothing of what the key was shown is left for the next.
  await giveKey(other, SLOW);
  await see(other, "of 3 servers ready", "header");
  await other.context().close();
});

await check("neither the policy nor a script has complained", async () => {
  assert(page.complaints.length === 0, page.complaints.join("; "));
});
await main.stop();

await check("a gateway without servers says how to add one", async () => {
  const empty = await gateway("empty", port, { mcp_servers: {} });
  const other = await open(`${empty.base}/`);
  await see(other, "No servers are configured", "#servers");
  await picture(other, "empty-light-1280");
  await go(other, "tools");
  await see(other, "No tool is offered", "#tools");
  await go(other, "pins");
  await see(other, "No server is pinned", "#pins");
  await inspect(other, "empty");
  assert(other.complaints.length === 0, other.complaints.join("; "));
  await other.context().close();
  await empty.stop();
});

await check("an admin signs in at a server, and a browser that has not begun must show the key", async () => {
  const wanting = await signingIn();
  const keyed = await gateway("signing-in", port, {
    state_dir: join(work, "signing-in-state"),
    api_keys: [{ name: "admin", key: ADMIN, admin: true }, { name: "user", key: USER }],
    mcp_servers: { account: { url: wanting.url, transport: "http", oauth: true, description: "Wants a sign-in." } },
  });
  const other = await open(`${keyed.base}/`);
  await giveKey(other, ADMIN);
  await see(other, "sign-in wanted", "[data-server=account] header");
  await see(other, "Somebody must sign in (nobody has signed in yet)", "[data-server=account]");
  await inspect(other, "a server that wants a sign-in");
  await picture(other, "sign-in-wanted-light-1280");
  const popup = other.waitForEvent("popup");
  await other.getByRole("button", { name: "Sign in" }).click();
  const tab = await popup;
  // The authorization server has no picture of its own.
  tab.on("console", (message) => ["error", "warning"].includes(message.type()) && !message.text().includes("status of 404") && other.complaints.push(message.text()));
  await see(tab, "Sign in to account");
  await see(tab, "all who use this gateway");
  assert(!(await tab.locator("#key").isVisible()), "the browser that has begun is asked for a key");
  await inspect(tab, "the page of a sign-in");
  await picture(tab, "sign-in-page-light-1280");
  const { href } = new URL(tab.url());
  // Somebody else to whom the link is sent.
  const victim = await open(href, { colorScheme: "dark", viewport: { width: 390, height: 900 } });
  await see(victim, "close this page");
  await inspect(victim, "the page of a sign-in, elsewhere");
  await picture(victim, "sign-in-page-dark-390");
  await victim.locator("#key").fill(USER);
  await victim.getByRole("button", { name: "Continue" }).click();
  await see(victim, "not the key of whoever began");
  await picture(victim, "sign-in-refused-dark-390");
  // The page of the authorization server, as the beginner could send it on.
  await tab.getByRole("button", { name: "Continue" }).click();
  await tab.locator("#agree").waitFor();
  const back = await tab.locator("#agree").getAttribute("href");
  await victim.goto(back);
  await see(victim, "begun in another browser");
  await inspect(victim, "a sign-in that is refused");
  await tab.locator("#agree").click();
  await see(tab, "Signed in to account");
  await inspect(tab, "a sign-in that is done");
  await picture(tab, "signed-in-light-1280");
  await see(other, "ready", "[data-server=account] header");
  await see(other, "the token ends at", "[data-server=account]");
  await see(other, "Sign in with another account", "[data-server=account]");
  await picture(other, "signed-in-console-light-1280");
  // Without an admin's key there is no button.
  const seen = await open(`${keyed.base}/`);
  await giveKey(seen, USER);
  await see(seen, "ready", "[data-server=account] header");
  assert((await seen.getByRole("button", { name: /Sign in/ }).count()) === 0, "a key that is no admin's has the button");
  assert(other.complaints.concat(victim.complaints, seen.complaints).length === 0, other.complaints.concat(victim.complaints, seen.complaints).join("; "));
  for (const it of [other, victim, seen]) await it.context().close();
  await keyed.stop();
  wanting.close();
});

await check("under a path it is the same with and without the last slash", async () => {
  const below = await gateway("below", port, { public_url: `http://127.0.0.1:${port}/trunk`, mcp_servers: { demo: config.mcp_servers.demo } });
  for (const path of ["/trunk", "/trunk/", "/"]) {
    const other = await open(below.base + path);
    await see(other, "1 of 1 server ready", "header");
    await chooseTool(other, "echo");
    await other.locator("#argument-message").fill(path);
    await other.getByRole("button", { name: "Call" }).click();
    await see(other, "The tool has answered", "#tool-result");
    assert(other.complaints.length === 0, other.complaints.join("; "));
    await other.context().close();
  }
  await below.stop();
});

await browser.close();
rmSync(work, { recursive: true, force: true });
console.log(`${results.passed} passed, ${results.failed} failed`);
process.exit(results.failed > 0 ? 1 : 0);
