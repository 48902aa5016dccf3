import { test } from '../test.ts';
import { furnish } from '../scenes.ts';
test('a life with 1K4 can be made through the API', async ({ world, owner }) => {
  test.setTimeout(120_000);
  await furnish(world, owner);
});
