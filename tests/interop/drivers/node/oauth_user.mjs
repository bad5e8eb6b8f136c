#!/usr/bin/env node
// A user of the TypeScript SDK 2.x who signs in with the SDK's own OAuth and calls a tool:
//
//   oauth_user.mjs URL TOOL [--era auto|legacy] [--transport http|sse] [--dpop] [--known] [--show-token]
//
// With --known it is the client `known` of the authorization server, else it registers itself, and then with the scopes
// that it wants at first, which the authorization server holds it to later. The user is $RIG_USER, and $RIG_PERSON the script that is their browser. Prints what the tool says.
import { Client, DpopSession, SSEClientTransport, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client';
import { execFile } from 'node:child_process';
import { parseArgs, promisify } from 'node:util';

const options = { era: { type: 'string', default: 'auto' }, transport: { type: 'string', default: 'http' }, dpop: { type: 'boolean' }, known: { type: 'boolean' }, 'show-token': { type: 'boolean' } };
const { values: a, positionals: [url, tool] } = parseArgs({ options, allowPositionals: true });
const dpop = a.dpop ? await DpopSession.create() : undefined;

class Memory {
  redirectUrl = 'http://127.0.0.1:3030/callback'; // nobody listens there
  clientMetadata = {
    client_name: 'interop', redirect_uris: [this.redirectUrl], grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'], token_endpoint_auth_method: 'none',
  };
  client = a.known ? { client_id: 'known', client_secret: 'the-secret-of-known', token_endpoint_auth_method: 'client_secret_basic' } : undefined;
  dpop() { return dpop; }
  clientInformation() { return this.client; }
  saveClientInformation(client) { this.client = client; }
  tokens() { return this.kept; }
  saveTokens(tokens) { this.kept = tokens; }
  saveCodeVerifier(verifier) { this.verifier = verifier; }
  codeVerifier() { return this.verifier; }
  state() { return (this.sent = crypto.randomUUID()); }
  async redirectToAuthorization(address) {
    console.error('signed in with the scopes:', address.searchParams.get('scope'));
    const env = { ...process.env, RIG_BROWSER: 'print' };
    const { stdout } = await promisify(execFile)(process.env.RIG_PERSON, [address.href], { env });
    this.back = new URL(stdout.trim()).searchParams;
    if (this.back.get('state') !== this.sent) throw new Error('another state comes back');
  }
}

const provider = new Memory();
const transport = () => {
  const Transport = a.transport === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport;
  return new Transport(new URL(url), { authProvider: provider });
};
const client = () => new Client({ name: 'interop', version: '1' }, { versionNegotiation: { mode: a.era } });

let it = client();
let through = transport();
try {
  await it.connect(through);
} catch (error) {
  if (!(error instanceof UnauthorizedError)) throw error;
  await through.finishAuth(provider.back);
  [it, through] = [client(), transport()];
  await it.connect(through);
}
const { tools } = await it.listTools();
if (!tools.some(({ name }) => name === tool)) throw new Error(`only ${tools.map(({ name }) => name)}`);

async function call() {
  try {
    return await it.callTool({ name: tool, arguments: {} });
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
    // It wants more scopes than the first sign-in has brought.
    await through.finishAuth(provider.back);
    return it.callTool({ name: tool, arguments: {} });
  }
}
const result = await call();
if (result.isError) throw new Error(JSON.stringify(result));
console.log(result.content[0].text);
if (a['show-token']) console.log('token', provider.kept.access_token);
await it.close();
