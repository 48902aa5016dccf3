/** A list that comes page by page, newest first. */
import { asFailure, type ApiFailure } from '../../lib/api';

type Answer<T> = { data: T[]; next?: string | null };

export class Pages<T> {
  rows = $state.raw<T[] | null>(null);
  next = $state<string | null>(null);
  busy = $state(false);
  failure = $state.raw<ApiFailure | null>(null);
  #round = 0;
  #ask: (cursor: string | null) => Promise<Answer<T>>;

  constructor(ask: (cursor: string | null) => Promise<Answer<T>>) {
    this.#ask = ask;
  }

  restart(): Promise<void> {
    this.#round += 1;
    return this.#page(null);
  }

  more(): Promise<void> {
    return this.#page(this.next);
  }

  async #page(cursor: string | null): Promise<void> {
    const round = this.#round;
    this.busy = true;
    try {
      const { data, next } = await this.#ask(cursor);
      // Somebody asked for others meanwhile.
      if (round !== this.#round) return;
      this.rows = cursor === null ? data : [...(this.rows ?? []), ...data];
      this.next = next ?? null;
      this.failure = null;
    } catch (error) {
      if (round === this.#round) this.failure = asFailure(error);
    } finally {
      if (round === this.#round) this.busy = false;
    }
  }
}
