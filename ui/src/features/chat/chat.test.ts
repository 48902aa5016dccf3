import { describe, expect, it } from 'vitest';
import type { Schemas } from '../../lib/api';
import { filePath } from './attachments.svelte';
import { sections, type Conversation } from './conversations.svelte';
import { speed } from './facts';
import { Live } from './live.svelte';
import { marked } from './marked';
import { sentences } from './sentences';
import { Tree, type Message } from './tree';

const message = (id: string, parent: string | null, at: number, role: Message['role'] = 'user'): Message => ({ id, parent, role, content: { parts: [{ type: 'text', text: id }] }, version: 1, created_at: at });

describe('the tree of a conversation', () => {
  // q1 has two answers; under the second somebody went on, and edited that question.
  const tree = new Tree([message('q1', null, 1), message('a1', 'q1', 2), message('a2', 'q1', 3), message('q2', 'a2', 4), message('q2b', 'a2', 5), message('a3', 'q2b', 6)]);
  const ids = (list: Message[]): string[] => list.map((one) => one.id);

  it('is read along one branch', () => {
    expect(ids(tree.path('a3'))).toEqual(['q1', 'a2', 'q2b', 'a3']);
    expect(ids(tree.path('a1'))).toEqual(['q1', 'a1']);
    expect(tree.path('nobody')).toEqual([]);
  });
  it('knows the branches from a place, and where each ends', () => {
    expect(tree.siblings('a1')).toEqual(['a1', 'a2']);
    expect(tree.siblings('q1')).toEqual(['q1']);
    expect([tree.end(null), tree.end('q2'), tree.end('a2')]).toEqual(['a3', 'q2', 'a3']);
  });
  it('grows without changing the one before', () => {
    const more = tree.with(message('a4', 'q2', 7));
    expect([more.end('q2'), tree.end('q2')]).toEqual(['a4', 'q2']);
  });
});

describe('an answer that is being made', () => {
  const event = (seq: number, more: object): Schemas['Numbered'] => ({ seq, time: 1_000, ...more }) as Schemas['Numbered'];

  it('joins words of one kind, and says what it waits for', () => {
    const live = new Live('run_1');
    live.apply([event(1, { type: 'asked', step: 1, model: 'm' }), event(2, { type: 'waiting', reason: 'loading' })]);
    expect(live.waiting).toMatchObject({ reason: 'loading' });
    live.apply([event(3, { type: 'reasoning', text: 'hm' }), event(4, { type: 'text', text: 'a' }), event(5, { type: 'text', text: 'b' })]);
    expect(live.waiting).toBeNull();
    expect(live.parts).toEqual([{ type: 'reasoning', text: 'hm' }, { type: 'text', text: 'ab' }]);
    live.apply([event(6, { type: 'ended', outcome: 'stopped' })]);
    expect(live.outcome?.outcome).toBe('stopped');
  });
});

it('sorts conversations: pinned, in folders, by day', () => {
  const now = new Date(2026, 10, 21, 12).getTime();
  const one = (id: string, hours: number, more: Partial<Conversation> = {}): Conversation =>
    ({ id, title: id, updated_at: now - hours * 3_600_000, pinned: false, folder: null, ...more }) as Conversation;
  const folders = [{ id: 'f', name: 'Work', version: 1, created_at: 0 }];
  const found = sections([one('today', 1), one('yesterday', 20), one('week', 80), one('old', 900), one('pinned', 900, { pinned: true }), one('filed', 1, { folder: 'f' })], folders, now);
  expect(found.map((section) => [section.id, section.list.map((item) => item.id)])).toEqual([
    ['pinned', ['pinned']],
    ['f', ['filed']],
    ['today', ['today']],
    ['yesterday', ['yesterday']],
    ['week', ['week']],
    ['older', ['old']],
  ]);
});

it('tells a speed only where it is known', () => {
  expect(speed({ output_tokens: 101, first_token_ms: 500, total_ms: 2_500 })).toBe(50);
  expect(speed({ output_tokens: 40, first_token_ms: 6_006, total_ms: 6_006 })).toBeNull();
  expect(speed({ output_tokens: null, first_token_ms: 1, total_ms: 9 })).toBeNull();
});

it('names an attachment so that the header takes it', () => {
  expect(filePath('../a b%ü.png')).toBe('attachments/-a%20b%25%C3%BC.png');
  expect(filePath('📎.txt')).toBe('attachments/%F0%9F%93%8E.txt');
});

it('marks what was looked for', () => {
  expect(marked('one two', [{ start: 4, end: 7 }])).toEqual([{ text: 'one ', marked: false }, { text: 'two', marked: true }]);
  expect(marked('one', [{ start: 0, end: 2 }, { start: 1, end: 3 }])).toEqual([{ text: 'on', marked: true }, { text: 'e', marked: false }]);
});

it('reads an answer out by sentences', () => {
  const [first, at] = sentences('One. Two is', 0);
  expect(first).toBe('One.');
  expect(sentences('One. Two is', at)).toEqual(['', at]);
  expect(sentences('One. Two is here. Three', at)[0]).toBe('Two is here.');
});
