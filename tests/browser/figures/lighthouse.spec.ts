// Row 3: Lighthouse on the sign-in page and the chat, as a phone on a slow network would have them.

import { chromium } from '@playwright/test';
import lighthouse from 'lighthouse';
import { test } from '../test.ts';
import { report } from './measure.ts';

const CATEGORIES = { accessibility: 100, 'best-practices': 100, performance: 95 } as const;
const PORT = 9333;

for (const [name, path] of [
  ['sign-in', '/sign-in'],
  ['chat', '/'],
] as const) {
  test(`Lighthouse: ${name}`, async ({ world, owner }) => {
    const browser = await chromium.launch({
      executablePath: process.env['ONEK4_CHROMIUM'] ?? '/usr/bin/chromium',
      args: ['--no-sandbox', `--remote-debugging-port=${PORT}`, ...world.lab.trust()],
    });
    try {
      // Lighthouse opens a tab of its own in the browser's own profile, which the session must be in.
      if (name === 'chat') {
        const page = await (browser.contexts()[0] ?? (await browser.newContext())).newPage();
        const session = (await owner.client()).session();
        const devtools = await page.context().newCDPSession(page);
        await devtools.send('Network.setCookie', { ...session, url: world.origin, httpOnly: true, secure: true, sameSite: 'Lax' });
      }
      const result = await lighthouse(`${world.origin}${path}`, {
        port: PORT,
        output: 'json',
        logLevel: 'error',
        onlyCategories: Object.keys(CATEGORIES),
        disableStorageReset: true,
      });
      if (!result) throw new Error('Lighthouse gave no result');
      for (const [category, least] of Object.entries(CATEGORIES)) {
        const found = result.lhr.categories[category];
        report({ what: `Lighthouse, ${name}: ${category}`, unit: '', figure: Math.round((found?.score ?? 0) * 100), least });
        for (const { id } of found?.auditRefs ?? []) {
          const audit = result.lhr.audits[id];
          if (audit && audit.score !== null && audit.score < 0.9) console.log(`  ${category}: ${id}: ${audit.title} ${audit.displayValue ?? ''}`);
        }
      }
    } finally {
      await browser.close();
    }
  });
}
