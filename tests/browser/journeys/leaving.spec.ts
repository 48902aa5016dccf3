// Journey 12: everything is taken along, and then all of it is gone.

import { expect, journey } from '../test.ts';

journey('take everything along, then delete the account', async ({ page, world, hand }) => {
  const ada = world.newPerson('ada');
  await ada.giveCredits(1);
  await world.providers.plays('gpt-5.5', [{ say: 'An answer to take along.' }]);
  const talk = await ada.newConversation('gpt-5.5');
  await talk.ask('A question to take along');
  await ada.open(page, '/account/data');
  const [zip] = await Promise.all([page.waitForEvent('download'), hand.press(page.getByRole('button', { name: 'Download everything' }))]);
  expect(zip.suggestedFilename()).toMatch(/\.zip$/);
  expect(await zip.failure()).toBeNull();
  await hand.press(page.getByRole('button', { name: 'Delete account' }));
  const dialog = page.getByRole('dialog', { name: 'Delete the account for good?' });
  const { name } = await ada.api<{ name: string }>('GET', '/api/account');
  await hand.write(dialog.getByRole('textbox'), name);
  await hand.press(dialog.getByRole('button', { name: 'Delete account' }));
  await page.waitForURL((url) => !url.pathname.startsWith('/account'));
  await page.goto(`/chat/${talk.id}`);
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  const client = await ada.client();
  expect((await client.ask('GET', '/api/account')).status).toBe(401);
});
