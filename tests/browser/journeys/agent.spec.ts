// Journey 8: an agent is given a goal, asks before it changes something, and shows all of what it wants to do.

import { expect, journey } from '../test.ts';

const TEXT = '# Steps\n\n1. Kneel down\n2. Look\n';

journey('an agent asks, is allowed, and does what it said', async ({ page, world, owner, hand }) => {
  const path = `${hand.name}/steps.md`;
  await world.ollama.plays('qwen3:30b', [
    { think: 'A file will do.', calls: [{ tool: 'files_write', arguments: { path, text: TEXT } }] },
    { say: 'The steps are written.' },
  ]);
  await owner.open(page, '/agents/new');
  await hand.write(page.getByRole('textbox', { name: 'Goal' }), 'Write down how to look at a moss.');
  await hand.choose(page.getByRole('combobox', { name: 'Project' }), 'Personal');
  const models = page.getByRole('combobox', { name: 'Model', exact: true });
  await hand.choose(models, await models.locator('option').filter({ hasText: 'qwen3:30b' }).first().innerText());
  await hand.press(page.getByRole('button', { name: 'Start an agent' }));
  // The whole of it is shown, not a summary.
  await expect(page.getByText(path).first()).toBeVisible();
  await expect(page.getByText('Kneel down').first()).toBeVisible();
  expect(await written(), 'nothing is done before it is allowed').toBe(404);
  const question = page.getByRole('article', { name: /^Allow: Write file/ });
  await hand.press(question.getByRole('button', { name: 'Allow', exact: true }));
  await expect(page.getByText('The steps are written.').first()).toBeVisible();
  expect(await written()).toBe(200);

  async function written(): Promise<number> {
    const client = await owner.client();
    const answer = await client.ask('GET', `/api/projects/${await owner.project()}/files/content`, undefined, { 'x-1k4-path': path });
    return answer.status;
  }
});

journey('an agent is denied, and nothing happens', async ({ page, world, owner, hand }) => {
  const path = `${hand.name}/never.md`;
  await world.ollama.plays('qwen3:30b', [{ calls: [{ tool: 'files_write', arguments: { path, text: TEXT } }] }, { say: 'Then I leave it.' }]);
  const talk = await owner.newConversation('local/qwen3:30b');
  const run = await talk.say('Write a file.', {});
  await owner.open(page, '/approvals');
  await expect(page.getByText(path).first()).toBeVisible();
  await hand.press(page.getByRole('button', { name: 'Deny' }).first());
  await expect(page.getByText('Nothing waits for you').or(page.getByText('All questions are answered.')).first()).toBeVisible();
  await page.goto(`/runs/${run}`);
  await expect(page.getByText('Then I leave it.').first()).toBeVisible();
});
