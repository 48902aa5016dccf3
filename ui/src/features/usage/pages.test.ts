import { expect, it } from 'vitest';
import { Pages } from './pages.svelte';

it('comes page by page, and begins anew', async () => {
  const asked: (string | null)[] = [];
  const pages = new Pages<number>((cursor) => {
    asked.push(cursor);
    return Promise.resolve(cursor === null ? { data: [1, 2], next: 'b' } : { data: [3] });
  });
  await pages.restart();
  await pages.more();
  expect(pages.rows).toEqual([1, 2, 3]);
  expect(pages.next).toBeNull();
  await pages.restart();
  expect(pages.rows).toEqual([1, 2]);
  expect(asked).toEqual([null, 'b', null]);
});

it('drops a page of what is not wanted any more', async () => {
  const answers: ((data: number[]) => void)[] = [];
  const pages = new Pages<number>(() => new Promise((resolve) => answers.push((data) => resolve({ data }))));
  const rounds = [pages.restart(), pages.restart()];
  answers[1]?.([2]);
  answers[0]?.([1]);
  await Promise.all(rounds);
  expect(pages.rows).toEqual([2]);
});
