import { expect, test } from 'vitest';
import { actionOf, between, given, groups, matches, read, type Line, type Page, type Wanted } from './log';
import { actionWord } from './words';

const line = (seq: number, more: Partial<Line> = {}): Line => ({
  seq, time: seq * 1_000, hash: `h${seq}`, cost: '0', action: 'file_written', actor: { type: 'person' }, approval: { by: 'nobody' }, result: { outcome: 'done' }, ...more,
});
const all: Wanted = { who: 'all', what: 'all', outcome: 'all' };

/** A log of so many lines in pages of two, newest first. */
function lab(lines: Line[]) {
  const asked: (string | null)[] = [];
  const ask = async (cursor: string | null): Promise<Page> => {
    asked.push(cursor);
    const data = lines.filter(({ seq }) => cursor === null || seq < Number(cursor)).sort((a, b) => b.seq - a.seq).slice(0, 2);
    const last = data.at(-1)?.seq ?? 1;
    return { data, next: last > 1 ? String(last) : null };
  };
  return { asked, ask };
}
const agent: Line['actor'] = { type: 'agent', run: 'run_1', model: 'm' };

test('filters by who, what, outcome and time', () => {
  const one = line(5, { actor: agent, result: { outcome: 'failed', code: 'x' }, action: 'task_created' });
  expect(matches(one, { ...all, who: 'agent', what: 'group:tasks', outcome: 'failed', from: 5_000, until: 5_001 })).toBe(true);
  for (const other of [{ who: 'person' }, { what: 'group:files' }, { what: 'task_deleted' }, { outcome: 'done' }, { from: 5_001 }, { until: 5_000 }] as Partial<Wanted>[]) {
    expect(matches(one, { ...all, ...other })).toBe(false);
  }
  expect(actionOf({ ...all, what: 'task_created' })).toBe('task_created');
  expect(actionOf({ ...all, what: 'group:tasks' })).toBeUndefined();
});

test('reads on until enough is found', async () => {
  const lines = [1, 2, 3, 4, 5, 6, 7, 8].map((seq) => line(seq, seq % 4 === 0 ? { actor: agent } : {}));
  const { asked, ask } = lab(lines);
  const part = await read(ask, { ...all, who: 'agent' }, null, 2);
  expect(part.lines.map(({ seq }) => seq)).toEqual([8, 4]);
  expect(part).toMatchObject({ next: '3', looked: 6 });
  expect(asked).toEqual([null, '7', '5']);
});

test('ends with the time that is wanted, and with the log', async () => {
  const lines = [1, 2, 3, 4, 5, 6].map((seq) => line(seq));
  expect(await read(lab(lines).ask, { ...all, from: 4_000 }, null, 99)).toMatchObject({ next: null, looked: 4 });
  expect(await read(lab(lines).ask, all, null, 99)).toMatchObject({ next: null, looked: 6 });
});

test('asks before it looks at everything', async () => {
  const lines = Array.from({ length: 60 }, (_, at) => line(at + 1));
  const part = await read(lab(lines).ask, { ...all, who: 'program' }, null, 1);
  expect(part).toMatchObject({ lines: [], looked: 20, next: '41' });
});

test('days of a calendar include both', () => {
  const { from, until } = between('2026-03-01', '2026-03-01');
  expect(until! - from!).toBe(24 * 3_600_000);
  expect(between('', '')).toEqual({ from: undefined, until: undefined });
});

test('every kind has a group and words', () => {
  const known = Object.keys(actionWord).sort();
  expect(Object.values(groups).flat().sort()).toEqual(known);
});

test('arguments are shown as they are', () => {
  // The description of the API says of arguments only that they are an object.
  const told = { path: 'a.md', size: 3, none: null, list: [1] } as unknown as Line['arguments'];
  expect(given(line(1, { arguments: told }))).toEqual([
    { name: 'path', text: 'a.md', plain: true },
    { name: 'size', text: '3', plain: true },
    { name: 'list', text: '[\n  1\n]', plain: false },
  ]);
});
