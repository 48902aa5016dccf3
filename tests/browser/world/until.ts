import { setTimeout as pause } from 'node:timers/promises';

/** Waiting longer than this for something that should happen is a failure. */
const PATIENCE_MS = 30_000;

/** Looks again and again until there is something: for what cannot be watched, such as a folder or another process. */
export async function until<T>(what: string, look: () => T | undefined | Promise<T | undefined>, patience = PATIENCE_MS): Promise<T> {
  const deadline = Date.now() + patience;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > deadline) throw new Error(`not in ${patience} ms: ${what}`);
    // The Lab lets an address ask thirty times a second.
    await pause(100);
  }
}
