import { expect, it } from 'vitest';
import { eventsOf } from './assistant.svelte';

it('reads what is told, wherever the stream is cut', async () => {
  const bytes = new TextEncoder().encode('data: {"text":"grün"}\n\ndata: {"text":" und"}\n\n: still here\n\ndata: {"end":true}\n\n');
  for (let cut = 0; cut <= bytes.length; cut += 1) {
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start(to) {
        to.enqueue(bytes.slice(0, cut));
        to.enqueue(bytes.slice(cut));
        to.close();
      },
    });
    const told: unknown[] = [];
    for await (const event of eventsOf(body)) told.push(event);
    expect(told, `cut at ${cut}`).toEqual([{ text: 'grün' }, { text: ' und' }, { end: true }]);
  }
});
