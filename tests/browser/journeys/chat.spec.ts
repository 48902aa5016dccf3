// Journeys 3 to 7: the first local answer, one from the cloud, stop, branches, and what becomes of an answer when the page, the line or
// the Lab itself breaks.

import { Chat } from '../chat.ts';
import { expect, journey, test } from '../test.ts';
import { until } from '../world/until.ts';

const SLOW = 'test-slow-d25000';

/** Words that can be told apart, so that a lost or a doubled one shows. */
const counted = (many: number) => Array.from({ length: many }, (_, at) => `word${at}`).join(' ');

journey('a first answer from the own workstation, with what it took', async ({ page, world, owner, hand }) => {
  await world.ollama.plays('llama3.2:3b', [{ say: 'A **moss** has no roots.' }]);
  await owner.open(page, '/chat');
  const chat = new Chat(page, hand);
  await chat.pick('llama3.2:3b');
  await chat.ask('What holds a moss to its rock?');
  const answer = await chat.whole();
  await expect(answer.getByText('A moss has no roots.')).toBeVisible();
  await expect(answer.locator('strong')).toHaveText('moss');
  await hand.press(answer.getByRole('button', { name: /llama3\.2:3b/ }));
  const facts = page.getByRole('dialog', { name: 'What this answer took' });
  await expect(facts.getByText('tower', { exact: true })).toBeVisible();
  for (const fact of ['Tokens in', 'Tokens out', 'Speed', 'First word after', 'Loading the model', 'no charge']) {
    await expect(facts.getByText(fact)).toBeVisible();
  }
  expect(new URL(page.url()).pathname).toMatch(/^\/chat\/cnv_/);
});

journey('an answer from the cloud, with its price', async ({ page, world, owner, hand }) => {
  await world.providers.plays('gpt-5.5', [{ say: 'In late October, when the beeches stand bare.' }]);
  await owner.open(page, '/chat');
  const chat = new Chat(page, hand);
  await chat.pick('gpt-5.5');
  await chat.ask('When shall I go?');
  const answer = await chat.whole();
  await expect(answer.getByText('In late October, when the beeches stand bare.')).toBeVisible();
  await expect(answer.getByRole('button', { name: /gpt-5\.5.*openai.*\$/i })).toBeVisible();
});

journey('stop: what was said stays, and the workstation is free', async ({ page, world, owner, hand }) => {
  await world.ollama.plays(SLOW, [{ say: counted(400) }]);
  await owner.open(page, '/chat');
  const chat = new Chat(page, hand);
  await chat.pick(SLOW);
  const before = (await world.ollama.seen(SLOW)).length;
  await chat.ask('Count');
  await expect(chat.answers.last().getByText('word3')).toBeVisible();
  await hand.press(chat.stopButton);
  await expect(chat.answers.last().getByText('Stopped. What was said is kept.')).toBeVisible();
  await until('the workstation works no more', async () => {
    const seen = await world.ollama.seen(SLOW);
    return seen.length === before + 1 && seen.at(-1)?.outcome === 'client_gone' ? true : undefined;
  });
  await page.reload();
  await expect(chat.answers.last().getByText('word3')).toBeVisible();
});

journey('branches: another answer, an edited question, and back', async ({ page, world, owner, hand }) => {
  await world.ollama.plays('llama3.2:3b', [{ say: 'The first answer.' }]);
  await owner.open(page, '/chat');
  const chat = new Chat(page, hand);
  await chat.pick('llama3.2:3b');
  await chat.ask('One question');
  await chat.whole();
  await world.ollama.plays('llama3.2:3b', [{ say: 'The second answer.' }]);
  await hand.press(chat.answers.last().getByRole('button', { name: 'Answer again' }));
  await expect(chat.answers.last().getByText('The second answer.')).toBeVisible();
  await chat.whole();
  await expect(page.getByLabel('Version 2 of 2')).toBeVisible();
  await hand.press(chat.answers.last().getByRole('button', { name: 'Previous version' }));
  await expect(chat.answers.last().getByText('The first answer.')).toBeVisible();
  await world.ollama.plays('llama3.2:3b', [{ say: 'The third answer.' }]);
  await hand.press(chat.questions.last().getByRole('button', { name: 'Edit message' }));
  await hand.write(page.getByRole('textbox', { name: 'Edit message' }), 'Another question');
  await hand.press(page.getByRole('button', { name: 'Send as new version' }));
  await expect(chat.answers.last().getByText('The third answer.')).toBeVisible();
  await chat.whole();
  await hand.press(chat.questions.last().getByRole('button', { name: 'Previous version' }));
  await expect(chat.questions.last().getByText('One question')).toBeVisible();
});

journey('an answer goes on while its page is gone, and on another device', async ({ page, world, owner, hand, browser, contextOptions }) => {
  await world.ollama.plays(SLOW, [{ say: counted(120) }]);
  await owner.open(page, '/chat');
  const chat = new Chat(page, hand);
  await chat.pick(SLOW);
  await chat.ask('Count');
  await expect(chat.answers.last().getByText('word3')).toBeVisible();
  await page.reload();
  await expect(chat.answers.last().getByText('word9')).toBeVisible();
  const phone = await (await browser.newContext(contextOptions)).newPage();
  await owner.open(phone, new URL(page.url()).pathname);
  for (const one of [page, phone]) {
    await expect(one.getByRole('article', { name: 'Answer' }).getByText(counted(120))).toBeVisible({ timeout: 30_000 });
  }
  await phone.context().close();
});

test('the Lab is killed in the middle of an answer, and nothing that was seen is lost', async ({ page, world, owner, hand }) => {
  await world.ollama.plays(SLOW, [{ say: counted(400) }]);
  await owner.open(page, '/chat');
  const chat = new Chat(page, hand);
  await chat.pick(SLOW);
  await chat.ask('Count');
  await expect(chat.answers.last().getByText('word9')).toBeVisible();
  await world.killLab();
  await expect(page.getByText(/Connecting again|cannot be reached/).first()).toBeVisible();
  const seen = await chat.answers.last().innerText();
  const words = /word0( word\d+)*/.exec(seen)?.[0] ?? '';
  await world.restartLab();
  // Nobody is told to reload: the page comes back by itself, and so does all that it had shown.
  await expect(page.getByText('The Lab was stopped in the middle of this answer. What was said is kept.')).toBeVisible({ timeout: 30_000 });
  await expect(chat.answers.last()).toContainText(words);
  await expect(page.getByText(/cannot be reached/)).toHaveCount(0);
});

test('a cold model is said to load, and does not look like a failure', async ({ page, world, owner, hand }) => {
  await world.ollama.plays('test-cold-l4000', [{ say: 'Warm now.' }]);
  await owner.open(page, '/chat');
  const chat = new Chat(page, hand);
  await chat.pick('test-cold-l4000');
  await chat.ask('Are you there?');
  await expect(page.getByRole('status').filter({ hasText: 'Loading model' })).toBeVisible();
  const answer = await chat.whole();
  await expect(answer.getByText('Warm now.')).toBeVisible();
});
