import { expect, test } from 'vitest';
import type { Schemas } from '../../../lib/api';
import { abouts, answer } from './reach';

const call = (tool: string, target: string): Schemas['Question'] => ({ type: 'call', call: '1.1', tool, target, arguments: {} });
const ids = (question: Schemas['Question']): string[] => abouts(question).map(({ id }) => id);

test('an answer can be about the file, its folder or all files', () => {
  expect(abouts(call('files_write', 'docs/plan/a.md')).map(({ targets }) => targets)).toEqual([
    { type: 'exactly', target: 'docs/plan/a.md' },
    { type: 'matching', pattern: 'docs/plan/**' },
    { type: 'any' },
  ]);
  expect(ids(call('files_write', 'a.md'))).toEqual(['exactly', 'any']);
});

test('signs of globs in a folder\'s name stand for themselves', () => {
  expect(abouts(call('files_patch', 'a[1]*/b.md'))[1]?.targets).toEqual({ type: 'matching', pattern: 'a[[]1[]][*]/**' });
});

test('a server\'s tool is remembered as a whole, a plan not at all', () => {
  expect([ids(call('wiki__edit', '')), ids(call('delegate', 'gpt-5.5')), ids(call('tasks_create', 'first')), ids({ type: 'plan', plan: 'x' })]).toEqual([
    ['any'],
    ['exactly', 'any'],
    ['any'],
    [],
  ]);
});

test('the Lab is told what is to be remembered, and nothing where it is for once', () => {
  const [exactly] = abouts(call('web_fetch', 'example.com'));
  expect(answer('allow', 'once', exactly)).toEqual({ decision: 'allow' });
  expect(answer('deny', 'run', exactly)).toEqual({ decision: 'deny', remember: { scope: 'run', targets: { type: 'exactly', target: 'example.com' } } });
  expect(answer('allow', 'project', undefined)).toEqual({ decision: 'allow' });
});

test('what somebody says to it goes along, and silence does not', () => {
  expect(answer('deny', 'once', undefined, ' use notes.md ')).toEqual({ decision: 'deny', words: 'use notes.md' });
  expect(answer('deny', 'once', undefined, '  ')).toEqual({ decision: 'deny' });
});
