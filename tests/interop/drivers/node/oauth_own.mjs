#!/usr/bin/env node
// A user of the TypeScript SDK 2.x of a server whose credentials are each user's own: the gateway asks for a sign-in by a
// question with a URL, which is opened, and the call goes on.
//
//   oauth_own.mjs URL TOOL --key KEY [--era auto|legacy] [--mute]
//
// With --mute the client cannot be asked. The user is $RIG_USER, $RIG_PERSON the script that is their browser. Prints what
// the tool says, or `error` and why it failed, and for each question `asked` and its URL.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { execFile } from 'node:child_process';
import { parseArgs, promisify } from 'node:util';

const options = { era: { type: 'string', default: 'auto' }, key: { type: 'string' }, mute: { type: 'boolean' } };
const { values: a, positionals: [url, tool] } = parseArgs({ options, allowPositionals: true });
const capabilities = a.mute ? {} : { elicitation: { form: {}, url: {} } };
const client = new Client({ name: 'interop', version: '1' }, { capabilities, versionNegotiation: { mode: a.era } });
if (!a.mute) {
  client.setRequestHandler('elicitation/create', async ({ params }) => {
    console.log('asked', params.mode, params.url, params.message);
    if (params.mode !== 'url') return { action: 'decline' };
    await promisify(execFile)(process.env.RIG_PERSON, [params.url], { env: process.env });
    return { action: 'accept' };
  });
}
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { Authorization: `Bearer ${a.key}` } } }));
try {
  const result = await client.callTool({ name: tool, arguments: {} });
  console.log(result.isError ? 'error' : 'says', result.content[0].text);
} catch (error) {
  console.log('error', error.message, JSON.stringify(error.data ?? null));
}
await client.close();
