// Journey 1: somebody whom nobody knows comes, gets a letter, and is in.

import { expect, journey, test } from '../test.ts';

journey('sign in by a letter, and out again', async ({ page, world, hand }) => {
  const ada = world.newPerson('ada');
  await page.goto('/sign-in');
  await hand.write(page.getByRole('textbox', { name: 'E-mail address' }), ada.address);
  await hand.press(page.getByRole('button', { name: 'Send me a link' }));
  await expect(page.getByText(`If ${ada.address} can sign in here`)).toBeVisible();
  await page.goto(await ada.letter());
  // What looks at links in mails uses none up: only a person's press does.
  await expect(page.getByRole('heading', { name: 'Sign in here?' })).toBeVisible();
  expect(page.url(), 'the token does not stay in the address').not.toContain('link=');
  await hand.press(page.getByRole('button', { name: 'Sign in', exact: true }));
  await page.waitForURL((url) => url.pathname === '/');
  if (hand.name === 'finger') await hand.press(page.getByRole('button', { name: /navigation/i }));
  await hand.press(page.getByRole('button', { name: 'Sign out' }));
  await expect(page.getByRole('button', { name: 'Sign out' })).toHaveCount(0);
  await page.goto('/devices');
  await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
});

test('the link goes on where the letter was asked for, and once', async ({ page, context, world }) => {
  const ada = world.newPerson('ada');
  await page.goto('/sign-in');
  await page.getByRole('textbox', { name: 'E-mail address' }).fill(ada.address);
  await page.getByRole('button', { name: 'Send me a link' }).click();
  const link = await ada.letter();
  const second = await context.newPage();
  await second.goto(link);
  await second.getByRole('button', { name: 'Sign in', exact: true }).click();
  await page.waitForURL((url) => url.pathname === '/');
  await context.clearCookies();
  const third = await context.newPage();
  await third.goto(link);
  await third.getByRole('button', { name: 'Sign in', exact: true }).click();
  await expect(third.getByText('This link was used, is too old, or belongs to another browser.')).toBeVisible();
});

test('another browser needs the code that the first one shows', async ({ page, browser, world, contextOptions }) => {
  const ada = world.newPerson('ada');
  await page.goto('/sign-in');
  await page.getByRole('textbox', { name: 'E-mail address' }).fill(ada.address);
  await page.getByRole('button', { name: 'Send me a link' }).click();
  const code = await page.getByText(/^[A-Z]{4}-[A-Z]{4}$/).innerText();
  const phone = await browser.newContext(contextOptions);
  const there = await phone.newPage();
  await there.goto(await ada.letter());
  await there.getByRole('button', { name: 'Sign in', exact: true }).click();
  await there.getByRole('textbox', { name: 'Code' }).fill(code);
  await there.getByRole('button', { name: 'Sign in', exact: true }).click();
  await there.waitForURL((url) => url.pathname === '/');
  await phone.close();
});

test('a stranger has no cookie, and nothing but looks in storage', async ({ page, context }) => {
  for (const path of ['/', '/sign-in', '/devices', '/nowhere']) {
    await page.goto(path);
    await expect(page.getByRole('heading').first()).toBeVisible();
    expect(await context.cookies(), path).toEqual([]);
    // How things look is all that is kept.
    const kept = await page.evaluate(() => Object.keys(localStorage));
    expect(kept.filter((key) => !['PARAGLIDE_LOCALE', '1k4.density', '1k4.theme'].includes(key)), path).toEqual([]);
  }
});
