import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { follow, Frames, type RunEvent, type StreamState } from './events';

describe('the text of a stream', () => {
  test('gives the data of each whole event, however it is cut', () => {
    const text = 'retry: 500\n\n: still here\n\nid: 1\nevent: text\ndata: {"a":"ü"}\n\nid: 2\r\ndata:{"b":1}\r\n\r\n';
    expect(new Frames().feed(text)).toEqual(['{"a":"ü"}', '{"b":1}']);
    const bytewise = new Frames();
    expect([...text].flatMap((letter) => bytewise.feed(letter))).toEqual(['{"a":"ü"}', '{"b":1}']);
  });

  test('an event that is not whole is none', () => {
    expect(new Frames().feed('data: {"a":1}\n')).toEqual([]);
  });
});

/** A Lab that knows one run: it says what it is told to, and can let a stream break or fall silent. */
class Lab {
  events: RunEvent[] = [];
  /** From which number each stream was asked for. */
  asked: number[] = [];
  mode: 'tells' | 'silent' | 'refuses' | 'skips' = 'tells';
  #streams = new Set<{ to: ServerResponse; told: number; silent: boolean }>();
  #server = createServer((request, answer) => this.#answer(request, answer));

  async start(): Promise<string> {
    await new Promise<void>((listening) => this.#server.listen(0, '127.0.0.1', listening));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  say(...texts: string[]): void {
    for (const text of texts) this.#push({ type: 'text', text });
  }

  end(): void {
    this.#push({ type: 'ended', outcome: 'done' });
  }

  cut(): void {
    for (const { to } of this.#streams) to.destroy();
    this.#streams.clear();
  }

  async close(): Promise<void> {
    this.cut();
    this.#server.closeAllConnections();
    await new Promise((closed) => this.#server.close(closed));
  }

  #push(event: { type: 'text'; text: string } | { type: 'ended'; outcome: 'done' }): void {
    this.events.push({ ...event, seq: this.events.length + 1, time: 0 });
    for (const stream of this.#streams) this.#tell(stream);
  }

  #tell(stream: { to: ServerResponse; told: number; silent: boolean }): void {
    if (stream.silent) return;
    for (const event of this.events.slice(stream.told)) {
      if (this.mode === 'skips' && event.seq === 2) {
        this.mode = 'tells';
        continue;
      }
      stream.to.write(`id: ${event.seq}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
    }
    stream.told = this.events.length;
  }

  #answer(request: IncomingMessage, answer: ServerResponse): void {
    if (this.mode === 'refuses') {
      answer.writeHead(404, { 'content-type': 'application/json' }).end('{"error":{"code":"not_found","message":"there is nothing"}}');
    } else if (request.url?.endsWith('/events')) {
      const told = Number(request.headers['last-event-id']);
      this.asked.push(told);
      answer.writeHead(200, { 'content-type': 'text/event-stream' }).write('retry: 500\n\n');
      const stream = { to: answer, told, silent: this.mode === 'silent' };
      this.#streams.add(stream);
      this.#tell(stream);
      if (this.events.at(-1)?.type === 'ended' && !stream.silent) answer.end();
    } else {
      answer.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ id: 'run', last_seq: this.events.length }));
    }
  }
}

describe('following a run', () => {
  let lab: Lab;
  let seen: RunEvent[];
  let states: StreamState[];
  let leave: () => void;
  const words = (): string => seen.flatMap((event) => (event.type === 'text' ? [event.text] : [])).join('');
  const failed: string[] = [];
  const watch = (after = 0): void => {
    leave = follow('run', after, {
      onevents: (events) => seen.push(...events),
      onstate: (state) => states.push(state),
      onfailure: (failure) => failed.push(failure.code),
    });
  };
  const patience = { timeout: 10_000, interval: 5 };

  beforeEach(async () => {
    lab = new Lab();
    seen = [];
    states = [];
    const origin = await lab.start();
    const { fetch } = globalThis;
    vi.stubGlobal('fetch', (path: string, request?: RequestInit) => fetch(origin + path, request));
  });
  afterEach(async () => {
    leave();
    vi.unstubAllGlobals();
    await lab.close();
  });

  test('gives everything to the end, and begins behind what is known', async () => {
    lab.say('one ', 'two ', 'three');
    watch(1);
    await vi.waitFor(() => expect(words()).toBe('two three'), patience);
    lab.say(', four');
    lab.end();
    await vi.waitFor(() => expect(seen.at(-1)?.type).toBe('ended'), patience);
    expect(words()).toBe('two three, four');
    expect([states, lab.asked]).toEqual([['opening', 'live'], [1]]);
  });

  test('a stream that breaks goes on behind the last event, and nothing comes twice', async () => {
    watch();
    for (let word = 1; word <= 20; word += 1) {
      lab.say(`${word} `);
      await vi.waitFor(() => expect(seen.length).toBe(word), patience);
      if (word % 5 === 0) lab.cut();
    }
    lab.end();
    await vi.waitFor(() => expect(seen.at(-1)?.type).toBe('ended'), patience);
    expect(seen.map((event) => event.seq)).toEqual(Array.from({ length: 21 }, (_, at) => at + 1));
    expect(states).toContain('broken');
    expect(lab.asked.slice(0, 4)).toEqual([0, 5, 10, 15]);
  });

  test('a stream that is dead without a word is noticed within five seconds', async () => {
    lab.mode = 'silent';
    watch();
    await vi.waitFor(() => expect(states).toContain('live'), patience);
    lab.say('missed');
    lab.mode = 'tells';
    const began = performance.now();
    await vi.waitFor(() => expect(words()).toBe('missed'), patience);
    expect(performance.now() - began).toBeLessThan(5_000);
  }, 15_000);

  test('a quiet run is left in peace', async () => {
    watch();
    await vi.waitFor(() => expect(states).toEqual(['opening', 'live']), patience);
    const questions = vi.spyOn(globalThis, 'fetch');
    await vi.waitFor(() => expect(questions).toHaveBeenCalled(), patience);
    lab.say('at last');
    await vi.waitFor(() => expect(words()).toBe('at last'), patience);
    expect([states, lab.asked]).toEqual([['opening', 'live'], [0]]);
  }, 15_000);

  test('a gap is not taken for the whole', async () => {
    lab.mode = 'skips';
    lab.say('one ', 'two ', 'three');
    watch();
    await vi.waitFor(() => expect(words()).toBe('one two three'), patience);
    expect(lab.asked).toEqual([0, 1]);
  });

  test('what is not there is said, and not asked for again', async () => {
    lab.mode = 'refuses';
    watch();
    await vi.waitFor(() => expect([states, failed]).toEqual([['opening'], ['not_found']]), patience);
  });

  test('nothing is given after somebody left', async () => {
    lab.say('one');
    watch();
    await vi.waitFor(() => expect(words()).toBe('one'), patience);
    leave();
    lab.say('two');
    lab.cut();
    await vi.waitFor(() => expect(lab.asked).toEqual([0]), patience);
    expect(words()).toBe('one');
  });
});
