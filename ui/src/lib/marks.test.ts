import { expect, test } from 'vitest';
import { pieces } from './marks';

test('cuts a text at its marks, whatever their order, and twice nowhere', () => {
  const text = 'moss on moss';
  expect(pieces(text, [{ start: 8, end: 12 }, { start: 0, end: 4 }])).toEqual([
    { text: 'moss', marked: true },
    { text: ' on ', marked: false },
    { text: 'moss', marked: true },
  ]);
  expect(pieces(text, [{ start: 0, end: 6 }, { start: 2, end: 4 }, { start: 5, end: 9 }]).map((piece) => piece.text)).toEqual(['moss o', 'n m', 'oss']);
  expect(pieces(text, [])).toEqual([{ text, marked: false }]);
});
