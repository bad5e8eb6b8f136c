#!/usr/bin/env node
// Signs in to a server with the console's button, in a real browser: console_sign_in.mjs CONSOLE MODULES SERVER USER
//
// MODULES is a folder whose node_modules has playwright-core. The browser is `chromium` of the PATH.
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [console_, modules, server, user] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, 'any.js'))('playwright-core');
const executablePath = process.env.CHROMIUM ?? execFileSync('sh', ['-c', 'command -v chromium']).toString().trim();
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'] });
const context = await browser.newContext();
context.setDefaultTimeout(15000);
const page = await context.newPage();
await page.goto(`${console_}/`);
const button = page.locator(`[data-server="${server}"]`).getByText(/sign in/i).and(page.locator('button, a')).first();
await button.waitFor();
const opened = Promise.race([context.waitForEvent('page'), page.waitForURL((url) => url.pathname !== '/').then(() => page)]);
await button.click();
const other = await opened;
await other.waitForLoadState();
// The gateway's own page, which may ask for nothing but a click, then the authorization server's, then the gateway's again.
for (let step = 0; step < 5 && !other.url().includes('/oauth/callback'); step++) {
  const here = other.url();
  console.log('at', here.split('?')[0]);
  const form = other.locator('form').first();
  await form.waitFor();
  const name = other.getByLabel('Name');
  if (await name.count()) await name.fill(user);
  await form.getByRole('button').first().click();
  await other.waitForURL((url) => url.href !== here && !url.pathname.startsWith('/oauth/sign-in'));
}
console.log('back at', new URL(other.url()).pathname, (await other.locator('body').innerText()).slice(0, 300));
if (other !== page && !page.isClosed()) await page.bringToFront();
const shown = other === page ? await context.newPage() : page;
if (shown !== page) await shown.goto(`${console_}/`);
await shown.locator(`[data-server="${server}"] header`).getByText('ready').waitFor();
await browser.close();
