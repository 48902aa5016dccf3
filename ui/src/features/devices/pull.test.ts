import { expect, test } from 'vitest';
import { steps, withLayer, type Layer } from './pull.svelte';

const read = async (...pieces: string[]) => {
  const body = new ReadableStream({
    start(to) {
      for (const piece of pieces) to.enqueue(new TextEncoder().encode(piece));
      to.close();
    },
  });
  const found = [];
  for await (const step of steps(new Response(body))) found.push(step);
  return found;
};

test('lines are read however they are cut, the last one without an end too', async () => {
  expect(await read('{"step":"pulling mani', 'fest"}\n\n{"step":"suc', 'cess"}')).toEqual([{ step: 'pulling manifest' }, { step: 'success' }]);
  expect(await read('{"error":"no room"}\n')).toEqual([{ error: 'no room' }]);
});

test('each layer goes on in its place', () => {
  let layers: Layer[] = [];
  for (const [digest, completed] of [['a', null], ['b', 5], ['a', 10], [null, 3]] as const) layers = withLayer(layers, { digest, completed, total: 10 });
  expect(layers).toEqual([{ digest: 'a', total: 10, completed: 10 }, { digest: 'b', total: 10, completed: 5 }]);
});
