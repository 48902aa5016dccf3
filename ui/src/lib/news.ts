/**
 * That something of the account's has changed: one stream of `GET /api/news` for the whole page.
 *
 * It is open while somebody listens and somebody looks. News may have been missed before each opening, so everybody is told then.
 */
import { isAbort, asFailure, send, type Schemas } from './api';
import { connection } from './connection.svelte';
import { Frames } from './events';

export type About = Schemas['About'];
type Listener = { about: readonly About[]; told: () => void };

/** The Lab says something every 2 s; a stream that has said nothing for longer is dead. */
const PATIENCE_MS = 5_000;

const listeners = new Set<Listener>();
let stream: AbortController | null = null;

/** Calls `told` at each piece of news about one of these, and whenever some may have been missed. Returns what ends it. */
export function listen(about: readonly About[], told: () => void): () => void {
  const listener = { about, told };
  if (listeners.size === 0) document.addEventListener('visibilitychange', keep);
  listeners.add(listener);
  keep();
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) document.removeEventListener('visibilitychange', keep);
    keep();
  };
}

function keep(): void {
  const wanted = listeners.size > 0 && !document.hidden;
  if (wanted && stream === null) {
    stream = new AbortController();
    void follow(stream.signal);
  } else if (!wanted) {
    stream?.abort();
    stream = null;
  }
}

function tell(news?: readonly About[]): void {
  for (const { about, told } of [...listeners]) if (!news || about.some((one) => news.includes(one))) told();
}

async function follow(over: AbortSignal): Promise<void> {
  for (let attempt = 0; !over.aborted; attempt += 1) {
    try {
      await once(over, () => (attempt = 0));
    } catch (error) {
      // Who is signed out hears nothing, and is shown the way in by what else is asked for; the next who listens tries anew.
      if (!isAbort(error) && asFailure(error).status === 401) {
        if (!over.aborted) stream = null;
        return;
      }
    }
    await connection.pause(attempt, over).catch(() => undefined);
  }
}

/** One stream, from its request to its end or its silence. */
async function once(over: AbortSignal, opened: () => void): Promise<void> {
  const request = new AbortController();
  const end = (): void => request.abort();
  let timer = setTimeout(end, PATIENCE_MS);
  const heard = (): void => {
    clearTimeout(timer);
    timer = setTimeout(end, PATIENCE_MS);
  };
  over.addEventListener('abort', end);
  try {
    const response = await send('/api/news', { headers: { accept: 'text/event-stream' }, cache: 'no-store', signal: request.signal });
    heard();
    opened();
    tell();
    const reader = response.body?.getReader();
    const frames = new Frames();
    const decoder = new TextDecoder();
    while (reader) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      for (const data of frames.feed(decoder.decode(value, { stream: true }))) tell((JSON.parse(data) as Schemas['Changed']).about);
    }
  } finally {
    clearTimeout(timer);
    over.removeEventListener('abort', end);
    end();
  }
}
