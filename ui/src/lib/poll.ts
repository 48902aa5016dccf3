import { untrack } from 'svelte';

/** Asks at once, and again `everyMs` after each answer, for as long as somebody looks at the page. Returns what ends it. */
export function poll(everyMs: number, ask: (signal: AbortSignal) => Promise<void>): () => void {
  const over = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let asking = false;

  const round = async (): Promise<void> => {
    if (asking || over.signal.aborted) return;
    clearTimeout(timer);
    if (document.hidden) return;
    asking = true;
    // Who asks shows what went wrong; the next round comes all the same.
    await ask(over.signal).catch(() => undefined);
    asking = false;
    if (!over.signal.aborted) timer = setTimeout(() => void round(), everyMs);
  };
  // Whoever comes back to the page sees how things are now, not how they were.
  const look = (): void => void round();
  document.addEventListener('visibilitychange', look);
  // The effect that began this must not begin it anew with each answer.
  untrack(look);
  return () => {
    over.abort();
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', look);
  };
}
