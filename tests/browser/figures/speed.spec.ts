// Rows 5, 6 and 8: a chat of a thousand messages, a thousand tokens a second into it, and how soon Stop reaches the workstation.

import { Chat } from '../chat.ts';
import { mouse } from '../hands.ts';
import { expect, test } from '../test.ts';
import type { Person, Talk } from '../world/person.ts';
import { until } from '../world/until.ts';
import type { World } from '../world.ts';
import { percentile, report, smoothness } from './measure.ts';

const MESSAGES = 1_000;
const FAST = 'test-fast-d1000';
const PIECES = [
  'A moss has no roots; it **holds on**.\n\n- one\n- two\n- three\n',
  '```rust\nfn main() {\n    println!("moss");\n}\n```\n\nThat is all.\n',
  '| moss | water |\n|---|---|\n| a | 20 |\n| b | 9 |\n',
  'Plain words, some of them, in two sentences. And then a third, which is longer than both were and ends here.\n',
];

let long: Talk;
test.beforeAll(async ({ world, owner }) => {
  test.setTimeout(600_000);
  long = await thousand(world, owner);
});

test('a chat of a thousand messages', async ({ page, owner }) => {
  await owner.open(page, `/chat/${long.id}`);
  const took: number[] = [];
  let nodes = 0;
  for (let round = 0; round < 5; round += 1) {
    await page.goto('/chat');
    await expect(page.getByText('What is on your mind?')).toBeVisible();
    const link = page.getByRole('link', { name: 'A thousand', exact: true });
    await expect(link).toBeVisible();
    took.push(
      await link.evaluate(
        (element) =>
          new Promise<number>((done) => {
            const began = performance.now();
            const look = () => {
              const last = document.querySelector('[aria-posinset="1000"]');
              // Painted: the frame after the one in which it came.
              if (last) requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
              else requestAnimationFrame(look);
            };
            (element as HTMLElement).click();
            requestAnimationFrame(look);
          }),
      ),
    );
    nodes = Math.max(nodes, await page.evaluate(() => document.querySelectorAll('*').length));
  }
  report({ what: `${MESSAGES} messages: opened to painted, median of 5`, unit: 'ms', figure: percentile(took, 0.5), most: 200 });
  report({ what: `${MESSAGES} messages: elements in the page`, unit: '', figure: nodes, most: 1_500 });
});

test('a thousand tokens a second into it', async ({ page, world, owner }) => {
  const words = Array.from({ length: 64 }, () => PIECES.join('\n')).join('\n');
  await world.ollama.plays(FAST, [...answers(MESSAGES / 2), { say: words }]);
  await owner.open(page, `/chat/${long.id}`);
  const chat = new Chat(page, mouse);
  await chat.pick(FAST);
  await chat.field.fill('Say much');
  await chat.field.press('Enter');
  await expect(page.getByRole('button', { name: 'Stop', exact: true })).toBeVisible();
  const stop = await smoothness(page);
  await chat.whole();
  const { fps, longTasks, longest } = await stop();
  const [last] = (await world.ollama.seen(FAST)).slice(-1);
  const tokens = Math.ceil(words.length / 4);
  report({ what: 'streaming 1,000 tokens/s into it: frames', unit: '/s', figure: fps, least: 50 });
  report({ what: 'streaming 1,000 tokens/s into it: tasks over 50 ms', unit: '', figure: longTasks, most: 0 });
  report({ what: 'streaming 1,000 tokens/s into it: longest task', unit: 'ms', figure: longest });
  report({ what: 'tokens of that answer', unit: '', figure: tokens });
  expect(last?.outcome).toBe('finished');
});

test('Stop reaches the workstation', async ({ page, world, owner }) => {
  const model = 'test-slow-d25000';
  await world.ollama.plays(model, [{ say: 'word '.repeat(2_000) }]);
  const took: number[] = [];
  for (let time = 0; time < 40; time += 1) {
    const talk = await owner.newConversation(`local/${model}`);
    await talk.say('Count');
    await owner.open(page, `/chat/${talk.id}`);
    const chat = new Chat(page, mouse);
    await expect(chat.answers.last()).toContainText('word');
    const before = (await world.ollama.seen(model)).length;
    const pressed = await chat.stopButton.evaluate((button) => {
      const at = performance.timeOrigin + performance.now();
      (button as HTMLElement).click();
      return at;
    });
    const gone = await until('the connection is closed', async () => (await world.ollama.seen(model))[before - 1]?.ended_ms ?? undefined);
    took.push(gone - pressed);
  }
  report({ what: "Stop to Ollama's connection closed, p95 of 40", unit: 'ms', figure: percentile(took, 0.95), most: 300 });
});

function answers(many: number): { say: string }[] {
  return Array.from({ length: many }, (_, at) => ({ say: PIECES[at % PIECES.length] ?? '' }));
}

async function thousand(world: World, owner: Person): Promise<Talk> {
  await world.ollama.plays('test-fast', answers(MESSAGES / 2));
  const talk = await owner.newConversation('local/test-fast');
  for (let turn = 0; turn < MESSAGES / 2; turn += 1) await talk.ask(`Question ${turn}`);
  await owner.api('PATCH', `/api/conversations/${talk.id}`, { title: 'A thousand' });
  return talk;
}
