/** Something that a page asks the Lab for: what came, or why not, and asking again. */
import { asFailure, isAbort, type ApiFailure } from './api';

export class Loaded<T> {
  value = $state.raw<T | null>(null);
  failure = $state.raw<ApiFailure | null>(null);
  busy = $state(false);
  #last = 0;
  #ask: () => Promise<T>;

  constructor(ask: () => Promise<T>) {
    this.#ask = ask;
  }

  /** Asks. What came before stays until there is something newer; an answer that was overtaken is dropped. */
  look = async (): Promise<void> => {
    const mine = ++this.#last;
    this.busy = true;
    try {
      const value = await this.#ask();
      if (mine !== this.#last) return;
      this.value = value;
      this.failure = null;
    } catch (error) {
      if (mine === this.#last && !isAbort(error)) this.failure = asFailure(error);
    } finally {
      if (mine === this.#last) this.busy = false;
    }
  };
}
