import { expect, test } from 'vitest';
import { diffLines, fold, tally, type DiffLine } from './diff';

const SIGNS = { same: ' ', gone: '-', new: '+' } as const;
const drawn = (lines: DiffLine[]): string[] => lines.map((line) => SIGNS[line.kind] + line.text);

/** What the lines say each text was: both must come out whole. */
function sides(lines: DiffLine[]): [string, string] {
  const side = (not: DiffLine['kind']): string =>
    lines
      .filter((line) => line.kind !== not)
      .map((line) => line.text + (line.unended ? '' : '\n'))
      .join('');
  return [side('new'), side('gone')];
}

test('keeps what is the same and shows what came and went', () => {
  expect(drawn(diffLines('a\nb\nc\n', 'a\nx\nc\nd\n'))).toEqual([' a', '-b', '+x', ' c', '+d']);
  expect(drawn(diffLines('', 'a\n'))).toEqual(['+a']);
  expect(drawn(diffLines('a\n', ''))).toEqual(['-a']);
  expect(diffLines('', '')).toEqual([]);
});

test('finds the shortest way, as in the paper', () => {
  const before = 'A\nB\nC\nA\nB\nB\nA\n';
  const after = 'C\nB\nA\nB\nA\nC\n';
  const lines = diffLines(before, after);
  expect(tally(lines)).toEqual({ added: 2, removed: 3 });
  expect(sides(lines)).toEqual([before, after]);
});

test('numbers the lines of both texts', () => {
  expect(diffLines('a\nb\nc\n', 'a\nc\n')).toMatchObject([{ before: 1, after: 1 }, { before: 2 }, { before: 3, after: 2 }]);
});

test('tells a last line without its break from one with it, but not one break from another', () => {
  expect(diffLines('a\nb', 'a\nb\n')).toMatchObject([{ kind: 'same' }, { kind: 'gone', unended: true }, { kind: 'new', text: 'b' }]);
  expect(tally(diffLines('a\r\nb\r\n', 'a\nb\n'))).toEqual({ added: 0, removed: 0 });
});

test('marks what is other within a line', () => {
  const [gone, came] = diffLines('the quick fox\n', 'the slow fox\n');
  expect(gone?.changed).toEqual([4, 9]);
  expect(came?.changed).toEqual([4, 8]);
  expect(diffLines('abc\n', 'xyz\n').every((line) => line.changed === undefined)).toBe(true);
});

test('comes out whole for any two texts', () => {
  let seed = 7;
  const next = (below: number): number => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) % below;
  for (let round = 0; round < 300; round += 1) {
    const text = (): string => Array.from({ length: next(12) }, () => `${'abc'[next(3)]}\n`).join('') + (next(4) === 0 ? 'end' : '');
    const [before, after] = [text(), text()];
    expect(sides(diffLines(before, after))).toEqual([before, after]);
  }
});

test('gives up on texts that have nothing in common, quickly and whole', () => {
  const text = (word: string): string => Array.from({ length: 20_000 }, (_, at) => `${word} ${at}\n`).join('');
  const started = performance.now();
  const lines = diffLines(text('a'), text('b'));
  expect(tally(lines)).toEqual({ added: 20_000, removed: 20_000 });
  expect(performance.now() - started).toBeLessThan(2_000);
});

test('folds what is far from any change', () => {
  const before = Array.from({ length: 30 }, (_, at) => `${at}\n`);
  const after = before.with(15, 'x\n');
  const parts = fold(diffLines(before.join(''), after.join('')));
  expect(parts.map((part) => [part.folded, part.lines.length])).toEqual([
    [true, 12],
    [false, 8],
    [true, 11],
  ]);
});
