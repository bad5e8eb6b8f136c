#!/usr/bin/env node
// A user of the TypeScript SDK 2.x, who can be asked everything, prints the names of all that is listed:
//   lists_ts2.mjs URL [--era legacy|auto|2026-07-28] [--transport http|sse]
import { Client, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { args } from './checks.mjs';

// The server registers some tools a moment after its client is initialized.
const SETTLED_MS = 2000;
const a = args();
const era = a.transport === 'sse' ? 'legacy' : /^\d/.test(a.era) ? { pin: a.era } : a.era;
const client = new Client(
  { name: 'rig-lists', version: '1' },
  { capabilities: { sampling: {}, elicitation: {}, roots: {} }, versionNegotiation: { mode: era } }
);
client.setRequestHandler('sampling/createMessage', async () => ({
  role: 'assistant', model: 'rig', content: { type: 'text', text: 'x' }
}));
client.setRequestHandler('elicitation/create', async () => ({ action: 'cancel' }));
client.setRequestHandler('roots/list', async () => ({ roots: [] }));
const url = new URL(a.url);
await client.connect(a.transport === 'sse' ? new SSEClientTransport(url) : new StreamableHTTPClientTransport(url));
await client.listTools();
await new Promise((done) => setTimeout(done, SETTLED_MS));
const listed = {
  tools: (await client.listTools()).tools.map((it) => it.name),
  prompts: (await client.listPrompts()).prompts.map((it) => it.name),
  resources: (await client.listResources()).resources.map((it) => it.uri),
  templates: (await client.listResourceTemplates()).resourceTemplates.map((it) => it.uriTemplate)
};
console.log(JSON.stringify(listed));
process.exit(0);
