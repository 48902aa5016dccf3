import { expect, test } from 'vitest';
import { edits, fields } from './arguments';

test('everything that a call has is shown, whatever it is', () => {
  expect(fields({ path: 'a.md', first_line: 3, deep: { a: [1] } })).toEqual([
    { name: 'path', text: 'a.md', long: false },
    { name: 'first_line', text: '3', long: false },
    { name: 'deep', text: '{\n  "a": [\n    1\n  ]\n}', long: true },
  ]);
  expect(fields('rm -rf')).toEqual([{ name: '…', text: '"rm -rf"', long: false }]);
  expect(fields({})).toEqual([]);
});

test('changes are read as changes only where all of them are', () => {
  expect(edits({ path: 'a', edits: [{ old: 'x', new: 'y' }, { old: 'a', new: '', all: true }] })).toEqual([
    { old: 'x\n', new: 'y\n', all: false },
    { old: 'a\n', new: '\n', all: true },
  ]);
  expect(edits({ edits: [{ old: 'x', new: 'y' }, { old: 'x' }] })).toEqual([]);
  expect(edits({ edits: 'all' })).toEqual([]);
});
