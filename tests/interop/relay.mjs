#!/usr/bin/env node
// A small HTTP relay to one MCP endpoint. Between the conformance suite and the gateway it changes
// what the suite cannot be told to do otherwise; between the gateway and the fixture it makes a
// server of one era out of one of both:
//
//   node relay.mjs --listen PORT --target URL --log FILE [--prefix P] [--revision R] [--refuse ERA]
//
//   --log FILE     every exchange goes there: headers, bodies, SSE events
//   --prefix P     the endpoint's tool and prompt names carry P: put on on the way in, taken off on
//                  the way out, so that everything but the name is measured. What carries another
//                  prefix is left out of lists, URIs pass unchanged
//   --revision R   initialize asks for R (the suite's client always asks for the newest one that
//                  it knows), and an endpoint that answers with another revision is refused
//   --refuse ERA   the endpoint seems not to know that era: 'legacy', so that it knows no
//                  'initialize' and no GET; or 'modern', so that it knows nothing of 2026-07-28
//
// Only on 127.0.0.1.
import http from 'node:http';
import fs from 'node:fs';
import { parseArgs } from 'node:util';

const names = ['listen', 'target', 'log', 'prefix', 'revision', 'refuse'];
const { values: opt } = parseArgs({ options: Object.fromEntries(names.map((n) => [n, { type: 'string' }])) });
const target = new URL(opt.target);
const prefix = opt.prefix ?? '';
const log = fs.createWriteStream(opt.log);
const say = (text) => log.write(text + '\n');
let count = 0;

function toEndpoint(message) {
  const p = message.params;
  const named = message.method === 'tools/call' || message.method === 'prompts/get' ? p : p?.ref;
  if (typeof named?.name === 'string') named.name = prefix + named.name;
  if (message.method === 'initialize' && opt.revision) p.protocolVersion = opt.revision;
}

function fromEndpoint(message) {
  const r = message.result;
  for (const list of ['tools', 'prompts']) {
    if (!Array.isArray(r?.[list])) continue;
    r[list] = r[list].filter((item) => item.name?.startsWith(prefix));
    for (const item of r[list]) item.name = item.name.slice(prefix.length);
  }
  if (opt.revision && r?.protocolVersion && r.protocolVersion !== opt.revision) {
    delete message.result;
    message.error = { code: -32000, message: `relay: asked for ${opt.revision}, got ${r.protocolVersion}` };
  }
}

/** The JSON text with `change` done to its message, or messages; what is no JSON as it is. */
function changed(text, change) {
  try {
    const json = JSON.parse(text);
    for (const message of Array.isArray(json) ? json : [json]) change(message);
    return JSON.stringify(json);
  } catch {
    return text;
  }
}

/** The Mcp-Name header with the prefix put on, plain or in its base64 form. */
function prefixed(name) {
  const coded = /^=\?base64\?(.*)\?=$/.exec(name);
  if (!coded) return prefix + name;
  return `=?base64?${Buffer.from(prefix + Buffer.from(coded[1], 'base64')).toString('base64')}?=`;
}

/** What a server of one era says to a request of the other, or null if it knows it. */
function refusal(req, headers, body) {
  let message = {};
  try {
    message = JSON.parse(body);
  } catch {
    // No message, so its header alone tells.
  }
  const revision = headers['mcp-protocol-version'];
  const modern = (revision ?? '') >= '2026' || message.method === 'server/discover';
  if (!opt.refuse || modern !== (opt.refuse === 'modern')) return null;
  if (req.method !== 'POST') return { status: 405, error: { code: -32000, message: 'Method not allowed' } };
  const error = modern
    ? { code: -32000, message: `Bad Request: Unsupported protocol version: ${revision}` }
    : {
        code: -32022,
        message: 'Unsupported protocol version',
        data: { supported: ['2026-07-28'], requested: message.params?.protocolVersion ?? revision ?? '' },
      };
  return { status: 400, id: message.id ?? null, error };
}

const heads = (headers) => Object.entries(headers).map(([k, v]) => `${k}: ${v}`).join('\n');
// A connection that is kept may end at the moment in which a machine that is busy comes to use it: so the ones to the
// endpoint are not kept, and the ones of clients are, for longer than these use them.
const agent = new http.Agent({ keepAlive: false });
const KEEP_ALIVE_MS = 60_000;
const here = [`127.0.0.1:${opt.listen}`, `localhost:${opt.listen}`];

http
  .createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (req, res) => {
    const chunks = [];
    req.on('data', (c) => chunks.push(c));
    req.on('end', () => {
      const n = ++count;
      const body = changed(Buffer.concat(chunks).toString(), toEndpoint);
      const headers = { ...req.headers };
      // The relay's own address becomes the endpoint's. A foreign Host or Origin passes unchanged,
      // so that it is the endpoint which has to refuse it.
      if (here.includes(headers.host)) headers.host = target.host;
      for (const h of here) if (headers.origin === `http://${h}`) headers.origin = `http://${target.host}`;
      if (prefix && headers['mcp-name'] && /^(tools\/call|prompts\/get)$/.test(headers['mcp-method']))
        headers['mcp-name'] = prefixed(headers['mcp-name']);
      delete headers['transfer-encoding'];
      delete headers['accept-encoding'];
      if (body || req.method === 'POST') headers['content-length'] = Buffer.byteLength(body);
      const path = target.pathname + new URL(req.url, target).search;
      say(`\n===== #${n} ${req.method} ${path}\n${heads(headers)}\n\n${body}`);

      const no = refusal(req, headers, body);
      if (no) {
        say(`\n----- #${n} refused with ${no.status} ${no.error.message}`);
        res.writeHead(no.status, { 'content-type': 'application/json' });
        return res.end(JSON.stringify({ jsonrpc: '2.0', id: no.id ?? null, error: no.error }));
      }
      const up = http.request({ host: target.hostname, port: target.port, method: req.method, path, headers, agent }, (r) => {
        say(`\n----- #${n} answer ${r.statusCode}\n${heads(r.headers)}\n`);
        const sse = String(r.headers['content-type'] ?? '').startsWith('text/event-stream');
        const answer = { ...r.headers };
        delete answer['content-length'];
        res.writeHead(r.statusCode, answer);
        if (sse) res.flushHeaders();
        const pass = (text) => {
          if (text) say(text.replace(/^/gm, `#${n}| `)), res.write(text);
        };
        let held = '';
        r.setEncoding('utf8');
        r.on('data', (text) => {
          held += text;
          if (!sse) return;
          // An event is passed on as soon as its lines are whole.
          const cut = held.lastIndexOf('\n') + 1;
          pass(held.slice(0, cut).replace(/^data: ?([{[].*?)\r?$/gm, (_, json) => `data: ${changed(json, fromEndpoint)}`));
          held = held.slice(cut);
        });
        r.on('end', () => {
          pass(sse ? held : changed(held, fromEndpoint));
          say(`----- #${n} end`);
          res.end();
        });
        r.on('error', () => res.destroy());
      });
      up.on('error', (e) => {
        say(`----- #${n} relay error ${e.message}`);
        if (res.headersSent) res.destroy();
        else res.writeHead(502).end(`relay: ${e.message}`);
      });
      res.on('close', () => up.destroy());
      up.end(body);
    });
  })
  .listen(Number(opt.listen), '127.0.0.1');
