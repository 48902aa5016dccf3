import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { poll } from './poll';

class Page extends EventTarget {
  hidden = false;
  show(visible: boolean): void {
    this.hidden = !visible;
    this.dispatchEvent(new Event('visibilitychange'));
  }
}
let page: Page;

beforeEach(() => {
  vi.useFakeTimers();
  page = new Page();
  vi.stubGlobal('document', page);
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test('asks at once and then after each answer, also behind one that failed', async () => {
  const ask = vi.fn<() => Promise<void>>().mockRejectedValueOnce(new Error('away')).mockResolvedValue();
  const end = poll(1_000, ask);
  expect(ask).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(2_500);
  expect(ask).toHaveBeenCalledTimes(3);
  end();
  await vi.advanceTimersByTimeAsync(5_000);
  expect(ask).toHaveBeenCalledTimes(3);
});

test('never asks twice at once', async () => {
  const ask = vi.fn(() => new Promise<void>(() => undefined));
  poll(1_000, ask);
  page.show(true);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(ask).toHaveBeenCalledTimes(1);
});

test('rests while nobody looks, and asks at once when somebody does', async () => {
  const ask = vi.fn(async () => undefined);
  poll(1_000, ask);
  await vi.advanceTimersByTimeAsync(0);
  page.show(false);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(ask).toHaveBeenCalledTimes(1);
  page.show(true);
  expect(ask).toHaveBeenCalledTimes(2);
});
