/** Whether the Lab can be reached, as far as the last request told, and how long to wait before the next. */
class Connection {
  reachable = $state(true);
  #waiting = new Set<() => void>();

  constructor() {
    if (typeof window === 'undefined') return;
    window.addEventListener('online', () => this.#wake());
    window.addEventListener('offline', () => this.lost());
    document.addEventListener('visibilitychange', () => document.hidden || this.#wake());
  }

  reached(): void {
    if (this.reachable) return;
    this.reachable = true;
    this.#wake();
  }

  lost(): void {
    this.reachable = false;
  }

  /** Waits longer each time, never two browsers alike, and no longer once the network is back or somebody looks. */
  async pause(attempt: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(done);
        signal?.removeEventListener('abort', abort);
        resolve();
      };
      const abort = (): void => {
        done();
        reject(signal?.reason);
      };
      const timer = setTimeout(done, backoff(attempt, Math.random()));
      this.#waiting.add(done);
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  #wake(): void {
    for (const wake of [...this.#waiting]) wake();
  }
}

/** Milliseconds before the next attempt: 0.3 s and then twice as long each time, at most 5 s, half of it by chance. */
export function backoff(attempt: number, chance: number): number {
  const most = Math.min(300 * 2 ** attempt, 5_000);
  return most / 2 + (most / 2) * chance;
}

export const connection = new Connection();
