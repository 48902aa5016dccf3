import { expect, test } from 'vitest';
import { OWN_TOOLS, turned } from './tools';

test('all tools are said by saying nothing, and none by an empty list', () => {
  const without = turned(null, 'delegate', false);
  expect(without).toEqual(OWN_TOOLS.filter((tool) => tool !== 'delegate'));
  expect(turned(without, 'delegate', true)).toBeNull();
  expect(OWN_TOOLS.reduce<ReturnType<typeof turned>>((chosen, tool) => turned(chosen, tool, false), null)).toEqual([]);
});
