import { untrack } from 'svelte';
import { listen, type About } from './news';

/** News tell at once; this is for what none came of. */
const NET_MS = 30_000;

type Ask = (signal: AbortSignal) => Promise<void>;

/** Asks at once, and again `everyMs` after each answer, for as long as somebody looks at the page. Returns what ends it. */
export function poll(everyMs: number, ask: Ask): () => void {
  return rounds(everyMs, ask).end;
}

/** Asks at once, at each piece of news about one of these, and every half minute all the same. Returns what ends it. */
export function onNews(about: readonly About[], ask: Ask): () => void {
  const asking = rounds(NET_MS, ask);
  const leave = untrack(() => listen(about, asking.anew));
  return () => {
    leave();
    asking.end();
  };
}

function rounds(everyMs: number, ask: Ask): { anew: () => void; end: () => void } {
  const over = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let asking = false;
  let stale = false;

  const round = async (): Promise<void> => {
    if (asking || over.signal.aborted) return;
    clearTimeout(timer);
    if (document.hidden) return;
    asking = true;
    stale = false;
    // Who asks shows what went wrong; the next round comes all the same.
    await ask(over.signal).catch(() => undefined);
    asking = false;
    if (over.signal.aborted) return;
    if (stale) void round();
    else timer = setTimeout(() => void round(), everyMs);
  };
  // Whoever comes back to the page sees how things are now, not how they were.
  const look = (): void => void round();
  document.addEventListener('visibilitychange', look);
  // The effect that began this must not begin it anew with each answer.
  untrack(look);
  return {
    // An answer that is on its way may be from before the news.
    anew: () => {
      stale = true;
      look();
    },
    end: () => {
      over.abort();
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', look);
    },
  };
}
