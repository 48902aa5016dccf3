import { expect, test } from '../test.ts';

test('a life with 1K4 can be made through the API', ({ scenes }) => {
  for (const [name, id] of Object.entries(scenes)) expect(id, name).not.toBe('');
});
