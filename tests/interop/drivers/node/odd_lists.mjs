#!/usr/bin/env node
// A user of the TypeScript SDK 2.x before odd servers: lists with malformed items, and links to be read.
//   odd_lists.mjs URL [--era legacy|2026-07-28]
import assert from 'node:assert/strict';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { args, check, done } from './checks.mjs';

const a = args();
const mode = /^\d/.test(a.era) ? { pin: a.era } : a.era;
const c = new Client({ name: 'rig', version: '1' }, { versionNegotiation: { mode } });

const connected = await check(a, 'connect', async () => {
  await c.connect(new StreamableHTTPClientTransport(new URL(a.url)));
  return c.getNegotiatedProtocolVersion();
});
if (!connected) done();

await check(a, 'lists', async () => {
  const tools = (await c.listTools()).tools.map((x) => x.name);
  const prompts = (await c.listPrompts()).prompts.map((x) => x.name);
  const resources = (await c.listResources()).resources.map((x) => x.uri);
  const templates = (await c.listResourceTemplates()).resourceTemplates.map((x) => x.uriTemplate);
  for (const [names, odd] of [[tools, 19], [prompts, 4]]) {
    const own = names.filter((n) => n.startsWith('malformed-'));
    assert.ok(own.includes('malformed-good') && own.length === odd, String(own));
  }
  const own = (names) => names.filter((n) => n.startsWith('malformed:'));
  assert.deepEqual(own(resources), ['malformed://good', 'malformed://odd2', 'malformed://odd3']);
  assert.deepEqual(own(templates), ['malformed://t/{good}']);
  assert.ok(tools.some((n) => n.startsWith('everything-')), String(tools));
  assert.equal((await c.callTool({ name: 'malformed-good', arguments: {} })).content[0].text, 'called');
  return `${tools.length} tools`;
});

await check(a, 'links', async () => {
  let n = 0;
  for (const [server, mark] of [['everything', ''], ['other', 'other+']]) {
    const result = await c.callTool({ name: `${server}-get-resource-links`, arguments: { count: 4 } });
    const uris = result.content.filter((x) => x.type === 'resource_link').map((x) => x.uri);
    assert.ok(uris.length === 4 && uris.every((u) => u.startsWith(`${mark}demo://`)), String(uris));
    for (const uri of uris) {
      assert.equal((await c.readResource({ uri })).contents[0].uri, uri);
      n++;
    }
  }
  return `${n} links`;
});
done();
