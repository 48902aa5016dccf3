/** What the command palette offers: pages, and what the open page adds for as long as it is there. */
import { untrack } from 'svelte';
import type { Drawing } from '../kit/drawing';

export type Command = { id: string; label: string; group: string; icon?: Drawing; keywords?: string; shortcut?: string; run: () => void };

class Commands {
  // Raw, so that what is taken away is the very thing that was added.
  list = $state.raw<Command[]>([]);

  /** Adds commands; returns what takes them away, as an `$effect` wants it. */
  add(...commands: Command[]): () => void {
    // Effects add, and must not run again for what others add.
    this.list = [...untrack(() => this.list), ...commands];
    return () => {
      this.list = untrack(() => this.list).filter((one) => !commands.includes(one));
    };
  }
}

/** Those that have all the words, those whose name begins with them first. */
export function choose<T extends Pick<Command, 'label' | 'keywords'>>(commands: T[], words: string): T[] {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const has = (command: T): boolean => {
    const text = `${command.label} ${command.keywords ?? ''}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  };
  const first = wanted[0] ?? '';
  const rank = (command: T): number => (command.label.toLowerCase().startsWith(first) ? 0 : 1);
  return commands.filter(has).sort((a, b) => rank(a) - rank(b));
}

export const commands = new Commands();
