import { expect, it } from 'vitest';
import { Loaded } from './loaded.svelte';

it('keeps what came before when asking again fails', async () => {
  const answers = [() => Promise.resolve(1), () => Promise.reject(new Error('gone'))];
  const loaded = new Loaded(() => (answers.shift() ?? (() => Promise.resolve(9)))());
  await loaded.look();
  await loaded.look();
  expect(loaded.value).toBe(1);
  expect(loaded.failure?.code).toBe('app_failed');
  await loaded.look();
  expect(loaded.failure).toBeNull();
});

it('drops an answer that was overtaken', async () => {
  const answers: ((value: string) => void)[] = [];
  const loaded = new Loaded(() => new Promise<string>((resolve) => answers.push(resolve)));
  const [first, second] = [loaded.look(), loaded.look()];
  answers[1]?.('new');
  answers[0]?.('old');
  await Promise.all([first, second]);
  expect(loaded.value).toBe('new');
  expect(loaded.busy).toBe(false);
});
