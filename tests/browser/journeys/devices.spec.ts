// Journeys 2 and 11: a workstation is paired, seen coming and going, and turned out again. And row 9: how soon that is seen.

import { expect, journey, test } from '../test.ts';

journey('pair a workstation and revoke it', async ({ page, world, hand }) => {
  const ada = world.newPerson('ada');
  const den = await world.newWorkstation('den');
  const { user_code, fingerprint } = await den.showCode();
  await ada.open(page, '/devices');
  // Nothing is here yet: the page says what to do about it.
  await expect(page.getByText('1k4-bridge login')).toBeVisible();
  await hand.press(page.getByRole('link', { name: /code|pair/i }).first());
  await hand.write(page.getByRole('textbox', { name: 'Code' }), user_code);
  await hand.press(page.getByRole('button', { name: 'Look it up' }));
  for (const word of fingerprint.split(/[\s-]+/)) await expect(page.getByText(word, { exact: true })).toBeVisible();
  await hand.press(page.getByRole('button', { name: 'The words are the same, pair it' }));
  await den.paired();
  await expect(page.getByText(/is paired$/)).toBeVisible();
  den.turnOn();
  ada.workstations.push(den);
  await page.goto('/devices');
  await expect(page.getByText('Online')).toBeVisible();
  await hand.press(page.getByRole('link', { name: 'den' }));
  await expect(page.getByText('llama3.2:3b').first()).toBeVisible();
  await hand.press(page.getByRole('button', { name: 'Revoke' }));
  await hand.press(page.getByRole('dialog').getByRole('button', { name: 'Revoke' }));
  await expect(page.getByText('den was revoked')).toBeVisible();
  await expect(page.getByText('1k4-bridge login')).toBeVisible();
  expect(await ada.device('den')).toBeUndefined();
});

test('a wrong word is refused', async ({ page, world }) => {
  const ada = world.newPerson('ada');
  const den = await world.newWorkstation('den');
  const { user_code } = await den.showCode();
  await ada.open(page, '/devices/pair');
  await page.getByRole('textbox', { name: 'Code' }).fill(user_code);
  await page.getByRole('button', { name: 'Look it up' }).click();
  await page.getByRole('button', { name: 'They differ, refuse it' }).click();
  await expect(page.getByText(/was refused$/)).toBeVisible();
  await expect(den.paired()).rejects.toThrow(/failed/);
  await den.end();
});

test('a workstation is seen to come and go', async ({ page, world }) => {
  const gone = page.getByText(/^(Link lost a moment ago|Offline)/);
  const ada = world.newPerson('ada');
  const den = await ada.newWorkstation('den');
  await ada.open(page, '/devices');
  await expect(page.getByText('Online')).toBeVisible();
  await den.turnOff();
  // Row 9: 2 s where it says good-bye.
  await expect(gone).toBeVisible({ timeout: 2_000 });
  den.turnOn();
  await expect(page.getByText('Online')).toBeVisible();
  den.pullCable();
  // And 20 s where it cannot.
  await expect(gone).toBeVisible({ timeout: 20_000 });
  den.plugIn();
  await expect(page.getByText('Online')).toBeVisible({ timeout: 20_000 });
});
