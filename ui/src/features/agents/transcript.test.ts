import { expect, test } from 'vitest';
import type { RunEvent } from '../../lib/events';
import { add, asked, empty, worked, type Transcript } from './transcript';

type Said = RunEvent extends infer E ? (E extends RunEvent ? Omit<E, 'seq' | 'time'> : never) : never;

/** A run of these events, a second apart. */
function run(...said: Said[]): Transcript {
  const transcript = empty();
  add(transcript, said.map((event, at) => ({ ...event, seq: at + 1, time: at * 1_000 }) as RunEvent));
  return transcript;
}
const used = (tokens: number, nano: number): Said => ({
  type: 'used',
  usage: { model: 'm', cost_nano: nano, estimated: false, request: 'r', total_ms: 1, input_tokens: tokens, output_tokens: 1, device: 'den' },
});
const first: Said = { type: 'asked', step: 1, model: 'local/m' };
const call: Said = { type: 'tool_call', call: '1.1', tool: 'files_write', arguments: { path: 'a' } as never };

test('words of a kind grow together, and thoughts stay apart from them', () => {
  const { steps } = run(first, { type: 'waiting', reason: 'loading' }, { type: 'reasoning', text: 'hm' }, { type: 'reasoning', text: 'm' }, { type: 'text', text: 'a' }, { type: 'text', text: 'b' });
  expect(steps[0]?.blocks).toEqual([
    { kind: 'thoughts', text: 'hmm' },
    { kind: 'text', text: 'ab' },
  ]);
  expect(steps[0]?.waiting).toBeNull();
});

test('a step says why nothing comes yet', () => {
  expect(run(first, { type: 'waiting', reason: 'queued', ahead: 2 }).steps[0]?.waiting).toMatchObject({ reason: 'queued', ahead: 2 });
});

test('a call gets its question, its answer and its result', () => {
  const asks = [first, call, { type: 'approval_asked', approval: 'apr_1', call: '1.1' }] satisfies Said[];
  expect(asked(run(...asks))).toBe('apr_1');
  const done = run(...asks, { type: 'approval_answered', approval: 'apr_1', allowed: true }, { type: 'tool_result', call: '1.1', ok: true, text: 'written' });
  expect(asked(done)).toBeNull();
  expect(done.steps[0]?.blocks[0]).toMatchObject({ approval: { id: 'apr_1', allowed: true }, result: { ok: true, text: 'written' } });
});

test('nothing is asked any more once the run is over', () => {
  const over = run(first, { type: 'planned', approval: 'apr_1', plan: '1. do it' }, { type: 'ended', outcome: 'stopped' });
  expect([asked(over), over.outcome?.outcome]).toEqual([null, 'stopped']);
});

test('counts what was spent, and the time at work without the owner\'s', () => {
  const transcript = run(first, used(10, 5), call, { type: 'approval_asked', approval: 'a', call: '1.1' }, { type: 'text', text: '' }, { type: 'approval_answered', approval: 'a', allowed: false }, used(20, 7));
  expect(transcript.spent).toEqual({ steps: 1, tokens: 32, nano: 12, estimated: false, device: 'den' });
  expect(worked(transcript, 8_000)).toBe(6_000);
  expect(worked(run(first, { type: 'ended', outcome: 'done' }), 60_000)).toBe(1_000);
});
