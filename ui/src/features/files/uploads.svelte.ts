/** Uploads of a project: some at once, the others in line, each to be stopped and tried again. */
import { SvelteMap } from 'svelte/reactivity';
import { asFailure, isAbort } from '../../lib/api';
import { language, m } from '../../lib/i18n.svelte';
import { MOST_BYTES, upload } from './upload';

export type Sent = {
  id: number;
  path: string;
  size: number;
  sent: number;
  state: 'waiting' | 'sending' | 'done' | 'failed' | 'cancelled';
  /** The version that it became. */
  version?: number;
  /** Why it failed, and what to do. */
  cause?: string;
};

// Enough to keep a line full; more would only share it.
const AT_ONCE = 3;

type Sender = typeof upload;

export class Uploads {
  list = $state<Sent[]>([]);
  #bodies = new SvelteMap<number, { body: Blob; over: AbortController }>();
  #next = 0;

  constructor(
    private readonly project: string,
    private readonly onuploaded: () => void,
    private readonly send: Sender = upload,
  ) {}

  readonly active = $derived(this.list.some(({ state }) => state === 'waiting' || state === 'sending'));
  readonly done = $derived(this.list.filter(({ state }) => state === 'done').length);

  add(files: { path: string; body: Blob }[]): void {
    for (const { path, body } of files) {
      const id = this.#next++;
      const one: Sent = { id, path, size: body.size, sent: 0, state: 'waiting' };
      // Said before a byte is sent: the Lab would refuse it only at its end.
      if (body.size > MOST_BYTES) Object.assign(one, { state: 'failed', cause: m.files_upload_large({ size: mebibytes(body.size) }) });
      else this.#bodies.set(id, { body, over: new AbortController() });
      this.list.push(one);
    }
    this.#go();
  }

  cancel(id: number): void {
    const one = this.#find(id);
    if (one?.state === 'waiting') one.state = 'cancelled';
    this.#bodies.get(id)?.over.abort();
  }

  retry(id: number): void {
    const one = this.#find(id);
    const kept = this.#bodies.get(id);
    if (!one || !kept) return;
    kept.over = new AbortController();
    Object.assign(one, { state: 'waiting', sent: 0, cause: undefined });
    this.#go();
  }

  canRetry(id: number): boolean {
    return this.#bodies.has(id);
  }

  /** Takes what is over off the list. */
  clear(): void {
    this.list = this.list.filter(({ state }) => state === 'waiting' || state === 'sending');
    for (const id of [...this.#bodies.keys()]) if (!this.#find(id)) this.#bodies.delete(id);
  }

  #find(id: number): Sent | undefined {
    return this.list.find((one) => one.id === id);
  }

  #go(): void {
    const free = AT_ONCE - this.list.filter(({ state }) => state === 'sending').length;
    for (const one of this.list.filter(({ state }) => state === 'waiting').slice(0, free)) void this.#run(one);
  }

  async #run(one: Sent): Promise<void> {
    const kept = this.#bodies.get(one.id);
    if (!kept) return;
    one.state = 'sending';
    try {
      const order = { project: this.project, path: one.path, body: kept.body, signal: kept.over.signal, onsent: (sent: number) => (one.sent = sent) };
      const written = await this.send(order);
      Object.assign(one, { state: 'done', sent: one.size, version: written.version });
      this.#bodies.delete(one.id);
      this.onuploaded();
    } catch (error) {
      if (isAbort(error)) one.state = 'cancelled';
      else {
        const { message, next } = asFailure(error);
        Object.assign(one, { state: 'failed', cause: `${message} ${next}`.trim() });
      }
    }
    this.#go();
  }
}

// In the unit of the limit, and never rounded down to it.
function mebibytes(size: number): string {
  return `${new Intl.NumberFormat(language.current, { maximumFractionDigits: 1 }).format(Math.ceil((size / 1_048_576) * 10) / 10)} MiB`;
}

/** The files that were dropped, also those in folders, with their paths below `into`. */
export async function dropped(transfer: DataTransfer, into: string): Promise<{ path: string; body: Blob }[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  if (entries.length === 0) return [...transfer.files].map((body) => ({ path: into + body.name, body }));
  const found: { path: string; body: Blob }[] = [];
  for (const entry of entries) await walk(entry, into, found);
  return found;
}

async function walk(entry: FileSystemEntry, into: string, found: { path: string; body: Blob }[]): Promise<void> {
  if (entry.isFile) {
    const body = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    found.push({ path: into + entry.name, body });
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  // A browser tells a folder in parts, until a part is empty.
  for (;;) {
    const part = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) return;
    for (const inner of part) await walk(inner, `${into}${entry.name}/`, found);
  }
}
