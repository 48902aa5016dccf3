/**
 * What happens in a run, as it happens: server-sent events over `fetch`.
 *
 * Events are numbered without gaps. A stream that breaks, or falls silent although something happened, is opened again behind the last
 * number that was seen, so that each event is given once and none is lost; nobody is ever asked to reload the page.
 */
import { api, asFailure, isAbort, send, type ApiFailure, type Schemas } from './api';
import { connection } from './connection.svelte';

export type RunEvent = Schemas['Numbered'];

/** `opening` at first, `live` while words can come, `broken` while it is opened again. */
export type StreamState = 'opening' | 'live' | 'broken';

export type Watcher = {
  /** Everything that came since the last frame, in order. */
  onevents: (events: RunEvent[]) => void;
  onstate?: (state: StreamState) => void;
  /** The Lab says that there is nothing to follow: the run is gone, or somebody else's. */
  onfailure?: (failure: ApiFailure) => void;
};

/** How long a stream may be silent before the Lab is asked whether something was missed. */
const QUIET_MS = 3_000;
/** How long that answer, or the beginning of a stream, may take. Together they are the 5 s in which a dead stream is noticed. */
const PATIENCE_MS = 2_000;
const OPENING_MS = 5_000;

/** Follows a run from behind event `after` to its end. Returns what ends it before. */
export function follow(run: string, after: number, watcher: Watcher): () => void {
  const stream = new Following(run, after, watcher);
  void stream.run();
  return () => stream.stop();
}

class Following {
  readonly #over = new AbortController();
  readonly #batch: Batch;
  #seen: number;
  #ended = false;

  constructor(
    private readonly id: string,
    after: number,
    private readonly watcher: Watcher,
  ) {
    this.#seen = after;
    this.#batch = new Batch(watcher.onevents);
  }

  stop(): void {
    this.#batch.drop();
    this.#over.abort();
  }

  async run(): Promise<void> {
    this.watcher.onstate?.('opening');
    for (let attempt = 0; !this.#ended; attempt += 1) {
      const before = this.#seen;
      try {
        await this.#once();
      } catch (error) {
        if (this.#over.signal.aborted) return;
        const failure = isAbort(error) ? null : asFailure(error);
        if (failure && failure.status >= 400 && failure.status < 500 && failure.status !== 429) {
          this.#batch.flush();
          this.watcher.onfailure?.(failure);
          return;
        }
      }
      if (this.#ended || this.#over.signal.aborted) return;
      this.watcher.onstate?.('broken');
      // A stream that said something was a good one: the next is opened soon.
      if (this.#seen > before) attempt = 0;
      try {
        await connection.pause(attempt, this.#over.signal);
      } catch {
        return;
      }
    }
  }

  /** One stream, from its request to its end. */
  async #once(): Promise<void> {
    const stream = new AbortController();
    const signal = AbortSignal.any([stream.signal, this.#over.signal]);
    const silence = new Silence(() => stream.abort(), this.id, () => this.#seen);
    try {
      silence.opens();
      const headers = { accept: 'text/event-stream', 'last-event-id': String(this.#seen) };
      const response = await send(`/api/runs/${encodeURIComponent(this.id)}/events`, { headers, cache: 'no-store', signal });
      silence.heard();
      this.watcher.onstate?.('live');
      const reader = response.body?.getReader();
      const frames = new Frames();
      const decoder = new TextDecoder();
      while (reader) {
        const { done, value } = await reader.read();
        if (done) return;
        silence.heard();
        for (const data of frames.feed(decoder.decode(value, { stream: true }))) {
          if (!this.#take(JSON.parse(data) as RunEvent)) return;
        }
      }
    } finally {
      silence.over();
      stream.abort();
    }
  }

  /** Whether the stream goes on. */
  #take(event: RunEvent): boolean {
    if (event.seq <= this.#seen) return true;
    // Something is missing before it: it comes again, with what is.
    if (event.seq > this.#seen + 1) return false;
    this.#seen = event.seq;
    this.#batch.add(event);
    if (event.type !== 'ended') return true;
    this.#ended = true;
    this.#batch.flush();
    return false;
  }
}

/** Notices that nothing comes any more. */
class Silence {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #over = false;

  constructor(
    private readonly dead: () => void,
    private readonly run: string,
    private readonly seen: () => number,
  ) {}

  opens(): void {
    this.#timer = setTimeout(this.dead, OPENING_MS);
  }

  heard(): void {
    clearTimeout(this.#timer);
    if (!this.#over) this.#timer = setTimeout(() => void this.#ask(), QUIET_MS);
  }

  over(): void {
    this.#over = true;
    clearTimeout(this.#timer);
  }

  // A run may have nothing to say for minutes; whether it has tells the number of its newest event.
  async #ask(): Promise<void> {
    const asked = this.seen();
    const patience = AbortSignal.timeout(PATIENCE_MS);
    try {
      const run = await api.get('/api/runs/{id}', { path: { id: this.run }, signal: patience });
      if (this.#over || this.seen() > asked) return;
      if (run.last_seq > asked) this.dead();
      else this.heard();
    } catch {
      if (!this.#over && this.seen() === asked) this.dead();
    }
  }
}

/** Gives events together, once for each frame that is drawn. */
class Batch {
  #events: RunEvent[] = [];
  #waits = false;

  constructor(private readonly give: (events: RunEvent[]) => void) {}

  add(event: RunEvent): void {
    this.#events.push(event);
    if (this.#waits) return;
    this.#waits = true;
    // A page that nobody sees is not drawn, and still has to know.
    if (typeof requestAnimationFrame === 'undefined' || document.hidden) setTimeout(() => this.flush(), 16);
    else requestAnimationFrame(() => this.flush());
  }

  flush(): void {
    this.#waits = false;
    const events = this.#events;
    this.#events = [];
    if (events.length > 0) this.give(events);
  }

  drop(): void {
    this.#events = [];
  }
}

/** Takes the text of a stream piece by piece and gives the data of each whole event. */
export class Frames {
  #rest = '';
  #data: string[] = [];

  feed(text: string): string[] {
    const whole: string[] = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line === '') {
        if (this.#data.length > 0) whole.push(this.#data.join('\n'));
        this.#data = [];
      } else if (line.startsWith('data:')) {
        this.#data.push(line.slice(line.startsWith('data: ') ? 6 : 5));
      }
      // The number and the type stand in the data as well; comments only show that the stream is alive.
    }
    return whole;
  }
}
