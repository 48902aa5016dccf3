// Journey 9: a file is edited, compared with what it was, and brought back to it.

import { expect, journey } from '../test.ts';

journey('edit a file, look at the difference, restore the older version', async ({ page, owner, hand }) => {
  const project = await owner.project();
  const name = `notes-${hand.name}.md`;
  await owner.writeFile(project, name, 'first line\nsecond line\n');
  await owner.open(page, `/projects/${project}/files`);
  await hand.press(page.getByRole('link', { name }));
  await expect(page.getByText('second line').first()).toBeVisible();
  await hand.press(page.getByRole('button', { name: 'Edit', exact: true }));
  const text = page.getByRole('textbox', { name: `Text of ${name}` });
  await hand.write(text, 'first line\nanother line\n');
  if (hand.name === 'keyboard') await page.keyboard.press('Escape');
  await hand.press(page.getByRole('button', { name: 'Save', exact: true }));
  await expect(page.getByText('Saved as version 2.').first()).toBeVisible();
  await expect(text, 'the editor shows what was saved').toHaveValue('first line\nanother line\n');
  await hand.press(page.getByRole('button', { name: 'Stop editing' }));
  await hand.press(page.getByRole('tab', { name: /^Versions/ }));
  await expect(page.getByText('second line').first()).toBeVisible();
  await expect(page.getByText('another line').first()).toBeVisible();
  await hand.press(page.getByRole('button', { name: 'Restore' }).first());
  await hand.press(page.getByRole('dialog').getByRole('button', { name: 'Restore' }));
  await expect(page.getByText('Version 1 is the newest again.').first()).toBeVisible();
  const client = await owner.client();
  const now = await client.ask('GET', `/api/projects/${project}/files/content`, undefined, { 'x-1k4-path': name });
  expect(now.text).toBe('first line\nsecond line\n');
});
