/** Keyboard shortcuts: one list of all that can be done now, each with keys that a person may change. */
import { untrack } from 'svelte';
import { keep, recall } from './preference';

export type Shortcut = {
  id: string;
  label: () => string;
  /** As in `mod+k`, `alt+shift+n`, `?`; `mod` is Command on a Mac, else Control. */
  keys: string;
  run: (event: KeyboardEvent) => void;
  /** Also while somebody writes. Shortcuts with `mod` or `alt`, and Escape, are taken there anyway. */
  whileTyping?: boolean;
};

/** What a shortcut is, whether or not it can be used now. */
export type KnownShortcut = Pick<Shortcut, 'id' | 'label' | 'keys'>;

const mac = typeof navigator !== 'undefined' && /Mac|iPhone|iPad/.test(navigator.platform);

/** The keys that an event stands for, in the order of {@link Shortcut.keys}. */
export function combination(event: Pick<KeyboardEvent, 'key' | 'ctrlKey' | 'metaKey' | 'altKey' | 'shiftKey'>, onMac = mac): string {
  const key = event.key === ' ' ? 'space' : event.key.toLowerCase();
  const parts: string[] = [];
  if (onMac ? event.metaKey : event.ctrlKey) parts.push('mod');
  if (onMac && event.ctrlKey) parts.push('ctrl');
  if (event.altKey) parts.push('alt');
  // A sign that needs Shift on some keyboards is itself; only letters and named keys tell Shift apart.
  if (event.shiftKey && (key.length > 1 || /\p{L}/u.test(key))) parts.push('shift');
  if (!['control', 'meta', 'alt', 'shift'].includes(key)) parts.push(key);
  return parts.join('+');
}

const SIGNS: Record<string, string> = { arrowup: '↑', arrowdown: '↓', arrowleft: '←', arrowright: '→', escape: 'Esc', enter: '↵', backspace: '⌫', space: '␣' };

/** Keys as they are written on this machine's keyboard. */
export function spoken(keys: string, onMac = mac): string {
  const names: Record<string, string> = onMac ? { mod: '⌘', alt: '⌥', shift: '⇧', ctrl: '⌃' } : { mod: 'Ctrl', alt: 'Alt', shift: 'Shift', ctrl: 'Ctrl' };
  return keys
    .split('+')
    .map((key) => names[key] ?? SIGNS[key] ?? (key.length === 1 ? key.toUpperCase() : key.charAt(0).toUpperCase() + key.slice(1)))
    .join(onMac ? '' : '+');
}

class Shortcuts {
  // Raw, so that what is taken away is the very thing that was added.
  list = $state.raw<Shortcut[]>([]);
  /** Each that was met since the page was loaded: its page may be closed by now, and its keys can be changed all the same. */
  known = $state.raw<KnownShortcut[]>([]);
  /** What a person has changed, by the shortcut's id. */
  changed = $state<Record<string, string>>({});

  start(): void {
    this.changed = recall('shortcuts', {});
    window.addEventListener('keydown', (event) => this.#press(event));
  }

  /** Adds shortcuts for as long as their page is there: returns what takes them away, as an `$effect` wants it. */
  add(...shortcuts: Shortcut[]): () => void {
    // Effects add, and must not run again for what others add.
    const known = untrack(() => this.known);
    const news = shortcuts.filter((one) => !known.some((old) => old.id === one.id));
    if (news.length > 0) this.known = [...known, ...news.map(({ id, label, keys }) => ({ id, label, keys }))];
    this.list = [...untrack(() => this.list), ...shortcuts];
    return () => {
      this.list = untrack(() => this.list).filter((one) => !shortcuts.includes(one));
    };
  }

  keysOf(shortcut: Pick<Shortcut, 'id' | 'keys'>): string {
    return this.changed[shortcut.id] ?? shortcut.keys;
  }

  /** Gives a shortcut other keys; `null` for its own again. */
  remap(id: string, keys: string | null): void {
    const { [id]: _, ...others } = this.changed;
    this.changed = keys === null ? others : { ...others, [id]: keys };
    keep('shortcuts', this.changed);
  }

  #press(event: KeyboardEvent): void {
    if (event.defaultPrevented || event.isComposing) return;
    const keys = combination(event);
    const writes = event.target instanceof HTMLElement && event.target.matches('input, textarea, select, [contenteditable="true"]');
    const plain = !/^(mod|alt|ctrl|escape)/.test(keys);
    // What was added last is nearest to what somebody does now.
    const found = this.list.findLast((one) => this.keysOf(one) === keys && (one.whileTyping || !writes || !plain));
    if (!found) return;
    event.preventDefault();
    found.run(event);
  }
}

export const shortcuts = new Shortcuts();
