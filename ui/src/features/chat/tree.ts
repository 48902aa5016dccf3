/** The tree that a conversation is: every edit and every other answer is a branch, and one path through it is read. */
import type { Schemas } from '../../lib/api';

export type Message = Schemas['Message'];
export type Part = Schemas['Part'];

export class Tree {
  readonly #byId = new Map<string, Message>();
  readonly #children = new Map<string | null, string[]>();

  constructor(messages: Iterable<Message>) {
    const inOrder = [...messages].sort((a, b) => a.created_at - b.created_at);
    for (const message of inOrder) this.#byId.set(message.id, message);
    for (const message of inOrder) {
      const parent = message.parent ?? null;
      const list = this.#children.get(parent);
      if (list) list.push(message.id);
      else this.#children.set(parent, [message.id]);
    }
  }

  get size(): number {
    return this.#byId.size;
  }

  get(id: string): Message | undefined {
    return this.#byId.get(id);
  }

  all(): Message[] {
    return [...this.#byId.values()];
  }

  with(...messages: Message[]): Tree {
    const known = new Map(this.#byId);
    for (const message of messages) known.set(message.id, message);
    return new Tree(known.values());
  }

  /** From the beginning to a message. */
  path(leaf: string | null): Message[] {
    const path: Message[] = [];
    const seen = new Set<string>();
    for (let at = leaf ? this.#byId.get(leaf) : undefined; at && !seen.has(at.id); at = at.parent ? this.#byId.get(at.parent) : undefined) {
      seen.add(at.id);
      path.push(at);
    }
    return path.reverse();
  }

  /** The branches that a message is one of, oldest first. */
  siblings(id: string): string[] {
    const message = this.#byId.get(id);
    return message ? (this.#children.get(message.parent ?? null) ?? []) : [];
  }

  /** The end of the newest branch below a message; without one, of all. */
  end(from: string | null): string | null {
    let at = from;
    for (;;) {
      const next: string | undefined = this.#children.get(at)?.at(-1);
      if (next === undefined) return at;
      at = next;
    }
  }
}

export function textOf(message: Pick<Message, 'content'>): string {
  return message.content.parts.flatMap((part) => (part.type === 'text' ? [part.text] : [])).join('\n\n');
}
