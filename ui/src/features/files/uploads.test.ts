import { expect, test, vi } from 'vitest';
import { ApiFailure, type Schemas } from '../../lib/api';
import { MOST_BYTES, type upload } from './upload';
import { Uploads } from './uploads.svelte';

type Order = Parameters<typeof upload>[0];

/** A Lab that answers when the test says so. */
function lab() {
  const asked: (Order & { answer: (version: number) => void; refuse: (error: unknown) => void })[] = [];
  const send = (order: Order): Promise<Schemas['FileVersion']> =>
    new Promise((resolve, reject) => {
      order.signal.addEventListener('abort', () => reject(new DOMException('', 'AbortError')));
      asked.push({ ...order, answer: (version) => resolve({ version } as Schemas['FileVersion']), refuse: reject });
    });
  return { asked, send };
}
const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));
const files = (...names: string[]) => names.map((path) => ({ path, body: new Blob([path]) }));

test('sends three at once and the next when one is through', async () => {
  const { asked, send } = lab();
  const told = vi.fn();
  const uploads = new Uploads('prj', told, send);
  uploads.add(files('a', 'b', 'c', 'd'));
  expect(asked.map(({ path }) => path)).toEqual(['a', 'b', 'c']);
  asked[1]?.answer(2);
  await settled();
  expect(asked.map(({ path }) => path)).toEqual(['a', 'b', 'c', 'd']);
  expect(uploads.list[1]).toMatchObject({ state: 'done', version: 2 });
  expect(told).toHaveBeenCalledTimes(1);
});

test('refuses what is too large before a byte is sent', () => {
  const { asked, send } = lab();
  const uploads = new Uploads('prj', () => {}, send);
  const large = { size: MOST_BYTES + 1 } as Blob;
  uploads.add([{ path: 'film.mkv', body: large }]);
  expect(asked).toEqual([]);
  expect(uploads.list[0]?.state).toBe('failed');
  expect(uploads.list[0]?.cause).toContain('50 MiB');
  expect(uploads.canRetry(0)).toBe(false);
});

test('what failed says why and can be tried again; what was stopped stays stopped', async () => {
  const { asked, send } = lab();
  const uploads = new Uploads('prj', () => {}, send);
  uploads.add(files('a', 'b'));
  asked[0]?.refuse(new ApiFailure(507, 'disk_full', 'the disk is full', ''));
  uploads.cancel(1);
  await settled();
  expect(uploads.list).toMatchObject([{ state: 'failed', cause: 'the disk is full' }, { state: 'cancelled' }]);
  uploads.retry(0);
  asked[2]?.answer(1);
  await settled();
  expect(uploads.list[0]).toMatchObject({ path: 'a', state: 'done' });
  uploads.clear();
  expect(uploads.list).toEqual([]);
});
