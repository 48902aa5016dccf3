import { describe, expect, it } from 'vitest';
import { amount, byDay, daysSince, firstDay, quantile, total, waits, type Request, type Sum } from './sums';

const now = Date.parse('2026-11-21T00:30:00Z');
const sum = (bucket: string, cost_nano: number): Sum => ({ bucket, requests: 2, input_tokens: 10, output_tokens: 5, cost: '0', cost_nano });

describe('days', () => {
  it('end with the one that is now, in UTC', () => {
    expect(firstDay(7, now)).toBe('2026-11-15');
    expect(daysSince('2026-11-19', now)).toEqual(['2026-11-19', '2026-11-20', '2026-11-21']);
  });
  it('have no gaps', () => {
    const days = byDay([sum('2026-11-20', 7)], daysSince('2026-11-19', now));
    expect(days.map((day) => day.cost_nano)).toEqual([0, 7, 0]);
  });
});

describe('sums', () => {
  it('add up', () => {
    const all = total([sum('a', 1), sum('b', 2)]);
    expect(all).toEqual({ requests: 4, input_tokens: 20, output_tokens: 10, cost_nano: 3 });
    expect(amount(all, 'tokens')).toBe(30);
  });
});

describe('waits', () => {
  const request = (model: string, latency_ms: number, more: Partial<Request> = {}): Request =>
    ({ model, latency_ms, first_token_ms: latency_ms / 2, outcome: 'complete', time: now, key: 'k', project: 'p', ...more }) as Request;

  it('are those of answers, by what is asked for', () => {
    const found = waits([request('a', 100), request('a', 300), request('b', 50), request('a', 1, { outcome: 'no_credits' })], 'model');
    expect(found).toEqual([
      { bucket: 'a', requests: 2, first: 50, median: 100, slow: 300 },
      { bucket: 'b', requests: 1, first: 25, median: 50, slow: 50 },
    ]);
  });
  it('know no first word where there was none', () => {
    expect(waits([request('a', 100, { first_token_ms: null })], 'day')[0]).toMatchObject({ bucket: '2026-11-21', first: null });
  });
});

it('a quantile is a value that was there', () => {
  expect(quantile([5, 1, 9, 3], 0.5)).toBe(3);
  expect(quantile([5, 1, 9, 3], 0.95)).toBe(9);
  expect(quantile([], 0.5)).toBe(0);
});
