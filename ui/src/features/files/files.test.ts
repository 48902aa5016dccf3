import { expect, test } from 'vitest';
import { crumbs, encoded, folderOf, freeName, nameOf, refusable } from './paths';
import { decode, encode, indent, languageOf, position, shownAs } from './text';
import { flat, rows, type File } from './tree';

const file = (path: string, size = 1, updated_at = 0): File => ({ id: path, path, size, updated_at, created_at: 0, version: 1, media_type: 'text/plain' });

test('a tree has folders first and shows what is in those that are open', () => {
  const files = [file('z.md'), file('a/b/two.md'), file('a/one.md'), file('a10.md'), file('a9.md')];
  const seen = (open: string[]): string[] => rows(files, new Set(open)).map((row) => '  '.repeat(row.depth) + row.name + (row.kind === 'folder' ? `/${row.files}` : ''));
  expect(seen([])).toEqual(['a/2', 'a9.md', 'a10.md', 'z.md']);
  expect(seen(['a/', 'a/b/'])).toEqual(['a/2', '  b/1', '    two.md', '  one.md', 'a9.md', 'a10.md', 'z.md']);
});

test('a list has whole paths, in the order that is wished', () => {
  const files = [file('b.md', 5, 1), file('a/c.md', 9, 2)];
  expect(flat(files, 'path').map((row) => row.name)).toEqual(['a/c.md', 'b.md']);
  expect(flat(files, 'size').map((row) => row.name)).toEqual(['a/c.md', 'b.md']);
  expect(flat(files, 'changed').map((row) => row.name)).toEqual(['a/c.md', 'b.md']);
});

test('paths', () => {
  expect([nameOf('a/b.md'), folderOf('a/b.md'), folderOf('b.md')]).toEqual(['b.md', 'a/', '']);
  expect(crumbs('a/b.md')).toEqual([{ name: 'a', path: 'a' }, { name: 'b.md', path: 'a/b.md' }]);
  expect(encoded('a/größe 100%.md')).toBe('a/gr%C3%B6%C3%9Fe%20100%25.md');
  expect(['', '/a', 'a//b', '../a', 'a.', 'a:b', 'a\\b', 'x'.repeat(513)].every(refusable)).toBe(true);
  expect(['a', 'a/b c.md', '.env', 'ä'.repeat(256)].some(refusable)).toBe(false);
  expect(freeName('a/b.tar', new Set(['a/b.tar', 'a/b-2.tar']))).toBe('a/b-3.tar');
});

test('a text comes back byte by byte when nobody touched it', () => {
  for (const whole of ['a\nb\n', 'a\r\nb\r\n', '\u{feff}a\r\nb', '', 'ünïcode 🙂']) {
    const bytes = new TextEncoder().encode(whole);
    const text = decode(bytes.buffer);
    expect(text && new TextDecoder('utf-8', { ignoreBOM: true }).decode(encode(text))).toBe(whole);
  }
  expect(decode(new Uint8Array([0xff, 0xfe, 0x00]).buffer)).toBeNull();
});

test('Tab moves lines and Shift+Tab moves them back', () => {
  expect(indent('ab', 1, 1, false)).toEqual({ text: 'a  b', from: 3, to: 3 });
  const moved = indent('a\nb\nc', 0, 3, false);
  expect(moved).toEqual({ text: '  a\n  b\nc', from: 2, to: 7 });
  expect(indent(moved.text, moved.from, moved.to, true)).toEqual({ text: 'a\nb\nc', from: 0, to: 3 });
});

test('small words about a file', () => {
  expect(position('ab\ncd', 4)).toEqual({ line: 2, column: 2 });
  expect(languageOf('x/count.PY')).toBe('python');
  expect(languageOf('Makefile')).toBe('');
  expect(shownAs({ media_type: 'text/plain; charset=utf-8', size: 1 })).toBe('text');
  expect(shownAs({ media_type: 'image/svg+xml', size: 1 })).toBe('other');
});
