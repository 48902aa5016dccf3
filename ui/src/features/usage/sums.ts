/** What the usage pages count: days without gaps, shares, and how long answers took. All of it from what the Lab stores. */
import type { Schemas } from '../../lib/api';

export type Sum = Schemas['UsageSum'];
export type Request = Schemas['Request'];
export const groupings = ['day', 'model', 'key', 'project'] as const;
export type Grouping = (typeof groupings)[number];
export const metrics = ['spend', 'tokens', 'requests', 'latency'] as const;
export type Metric = (typeof metrics)[number];
export const periods = [7, 30, 90] as const;

/** What the Lab calls requests that were asked under no key. */
export const NO_KEY = 'TheLabItself';

const DAY_MS = 86_400_000;

function utcDay(at: number): string {
  return new Date(at).toISOString().slice(0, 10);
}

/** The first of so many UTC days, today being the last. */
export function firstDay(days: number, now = Date.now()): string {
  return utcDay(now - (days - 1) * DAY_MS);
}

/** Every UTC day from `first` to today, those without a request too. */
export function daysSince(first: string, now = Date.now()): string[] {
  const days: string[] = [];
  for (let at = Date.parse(`${first}T00:00:00Z`); at <= now; at += DAY_MS) days.push(utcDay(at));
  return days;
}

const NOTHING = { requests: 0, input_tokens: 0, output_tokens: 0, cost: '0', cost_nano: 0 };

export function byDay(sums: Sum[], days: string[]): Sum[] {
  const found = new Map(sums.map((sum) => [sum.bucket, sum]));
  return days.map((bucket) => found.get(bucket) ?? { bucket, ...NOTHING });
}

export function total(sums: Sum[]): Omit<Sum, 'bucket' | 'cost'> {
  const sum = (of: (sum: Sum) => number): number => sums.reduce((all, one) => all + of(one), 0);
  return {
    requests: sum((one) => one.requests),
    input_tokens: sum((one) => one.input_tokens),
    output_tokens: sum((one) => one.output_tokens),
    cost_nano: sum((one) => one.cost_nano),
  };
}

/** What a metric counts of a sum. */
export function amount(sum: Omit<Sum, 'bucket' | 'cost'>, metric: Exclude<Metric, 'latency'>): number {
  return { spend: sum.cost_nano, tokens: sum.input_tokens + sum.output_tokens, requests: sum.requests }[metric];
}

export type Waits = { bucket: string; requests: number; first: number | null; median: number; slow: number };

/** How long answers took: half of them, and nineteen of twenty, no longer than that. Requests that were refused took none. */
export function waits(requests: Request[], by: Grouping): Waits[] {
  const bucketOf = (request: Request): string => (by === 'day' ? utcDay(request.time) : request[by]);
  const answered = requests.filter((request) => request.outcome === 'complete');
  const buckets = new Map<string, Request[]>();
  for (const request of answered) {
    const bucket = bucketOf(request);
    const some = buckets.get(bucket);
    if (some) some.push(request);
    else buckets.set(bucket, [request]);
  }
  return [...buckets].map(([bucket, some]) => {
    const took = some.map((one) => one.latency_ms);
    const first = some.flatMap((one) => (one.first_token_ms === null || one.first_token_ms === undefined ? [] : [one.first_token_ms]));
    return { bucket, requests: some.length, first: first.length > 0 ? quantile(first, 0.5) : null, median: quantile(took, 0.5), slow: quantile(took, 0.95) };
  });
}

/** The smallest value that at least this part of all values does not exceed. */
export function quantile(values: number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)] ?? 0;
}
