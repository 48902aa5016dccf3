// Journey 10: a key is made, seen once, and used as the page says.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, journey } from '../test.ts';

journey('make a key, run its example, revoke it', async ({ page, world, owner, context, hand }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const name = `laptop ${hand.name}`;
  await owner.open(page, '/keys');
  await hand.press(page.getByRole('button', { name: 'New key' }));
  await hand.write(page.getByRole('textbox', { name: 'Name' }), name);
  await hand.press(page.getByRole('button', { name: 'Create key' }));
  const shown = page.getByRole('dialog', { name: `${name} is ready` });
  const key = await shown.getByRole('status', { name: 'New key' }).innerText();
  expect(key).toMatch(/^1k4_live_/);
  await hand.press(shown.getByRole('button', { name: 'Copy example' }));
  const example = await page.evaluate(() => navigator.clipboard.readText());
  expect(example).toContain(key);
  const answer = await run(example, world.lab.caFile);
  expect((JSON.parse(answer) as { choices: unknown[] }).choices).toHaveLength(1);
  await hand.press(shown.getByRole('button', { name: 'I have stored it' }));
  await expect(page.getByText(key)).toHaveCount(0);
  await page.reload();
  await hand.press(page.getByRole('button', { name: `Actions for ${name}` }));
  await hand.press(page.getByRole('menuitem', { name: 'Revoke key' }));
  await hand.press(page.getByRole('dialog').getByRole('button', { name: 'Revoke key' }));
  await expect(page.getByText(`${name} is no longer taken.`)).toBeVisible();
  expect(await run(example, world.lab.caFile)).toContain('"error"');
});

/** What a shell makes of an example that was copied. */
async function run(example: string, caFile: string): Promise<string> {
  const { stdout } = await promisify(execFile)('sh', ['-c', example], { env: { PATH: process.env['PATH'], CURL_CA_BUNDLE: caFile } });
  return stdout;
}
