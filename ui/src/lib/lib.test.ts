import { describe, expect, it } from 'vitest';
import { address } from './api';
import { choose } from './commands.svelte';
import { backoff } from './connection.svelte';
import { bytes, duration, fromNano, money, relative, tokens } from './format';
import { language } from './i18n.svelte';
import { combination, spoken } from './keys.svelte';
import { match } from './router.svelte';

describe('money', () => {
  it('is the string that the Lab gave, never a float', () => {
    expect(money('0.000123')).toBe('$0.000123');
    expect(money('12.5')).toBe('$12.50');
    expect(money('-9007199254740993.1')).toBe('-$9,007,199,254,740,993.10');
    expect(money('0.129', 2)).toBe('$0.12');
    language.choose('de');
    expect(money('1234.5')).toBe('1.234,50 $');
    language.choose('en');
  });
  it('comes out of nano-credits exactly', () => {
    expect([0, 1, -1_500_000_000, 10_000_000_000, 123_456_789].map(fromNano)).toEqual(['0', '0.000000001', '-1.5', '10', '0.123456789']);
  });
});

it('says durations, sizes, counts and times as people do', () => {
  expect([320, 4_200, 38_000, 125_000, 11_400_000].map(duration)).toEqual(['320 ms', '4.2 s', '38 s', '2 min 5 s', '3 h 10 min']);
  expect([0, 999, 2_019_393_189, 52_428_800].map(bytes)).toEqual(['0 B', '999 B', '2 GB', '52.4 MB']);
  expect([9_999, 12_345].map(tokens)).toEqual(['9,999', '12.3K']);
  const now = Date.UTC(2026, 10, 21);
  expect([now - 5_000, now - 300_000, now - 86_400_000].map((at) => relative(at, now))).toEqual(['just now', '5 minutes ago', 'yesterday']);
});

it('finds the blanks of an address, and fills them', () => {
  expect(match('/projects/{id}/files', '/projects/prj_1/files')).toEqual({ id: 'prj_1' });
  expect(match('/projects/{id}', '/projects')).toBeNull();
  expect(match('/x/{id}', '/x/%E0%A4%A')).toBeNull();
  expect(address('/api/things/{id}', { id: 'a/b' }, { limit: 5, cursor: undefined })).toBe('/api/things/a%2Fb?limit=5');
});

describe('shortcuts', () => {
  const press = (key: string, more: Partial<KeyboardEvent> = {}): string => combination({ key, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...more }, false);
  it('are named by their keys', () => {
    expect(press('K', { ctrlKey: true, shiftKey: true })).toBe('mod+shift+k');
    expect(press('?', { shiftKey: true })).toBe('?');
    expect(press('Escape')).toBe('escape');
  });
  it('are written as on the keyboard', () => {
    expect([spoken('mod+shift+k', false), spoken('mod+k', true), spoken('escape', false)]).toEqual(['Ctrl+Shift+K', '⌘K', 'Esc']);
  });
});

it('offers commands that have all the words, names that begin with them first', () => {
  const all = [{ label: 'Sign out' }, { label: 'Open files', keywords: 'documents' }, { label: 'Files' }];
  expect(choose(all, 'file').map((one) => one.label)).toEqual(['Files', 'Open files']);
  expect(choose(all, 'doc open')).toHaveLength(1);
});

it('waits longer each time, and never as long as to be forgotten', () => {
  expect([0, 1, 2, 9].map((attempt) => backoff(attempt, 1))).toEqual([300, 600, 1_200, 5_000]);
  expect(backoff(9, 0)).toBe(2_500);
});
