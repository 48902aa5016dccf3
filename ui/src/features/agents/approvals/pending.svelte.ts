/** What agents ask their owner: what waits for an answer, and what was answered meanwhile, here or elsewhere. */
import { api, asFailure, isAbort, type ApiFailure, type Schemas } from '../../../lib/api';
import { onNews } from '../../../lib/poll';

type Approval = Schemas['Approval'];

/** Where an answer came from; it is said when it was not this page. */
export type Settled = { approval: Approval; by: 'here' | 'elsewhere' };

class Pending {
  /** Oldest first; `null` until the first answer. */
  list = $state.raw<Approval[] | null>(null);
  settled = $state.raw<Settled[]>([]);
  failure = $state.raw<ApiFailure | null>(null);
  /** The newest question that came while somebody was here: said once, and not again. */
  newest = $state.raw<Approval | null>(null);
  readonly count = $derived(this.list?.length ?? 0);

  /** Watches for as long as an `$effect` lives. */
  start = (): (() => void) => onNews(['approvals'], (signal) => this.look(signal));

  async look(signal?: AbortSignal): Promise<void> {
    try {
      const { data } = await api.get('/api/approvals', { signal });
      const before = this.list;
      // A question does not change while it waits: the object that is known stays, so that nothing moves under a finger.
      this.list = data.map((asked) => before?.find(({ id }) => id === asked.id) ?? asked);
      this.failure = null;
      if (before === null) return;
      this.newest = data.findLast(({ id }) => !before.some((known) => known.id === id)) ?? this.newest;
      const gone = before.filter(({ id }) => !data.some((still) => still.id === id));
      await Promise.all(gone.map(({ id }) => this.#settle(id)));
    } catch (error) {
      if (!isAbort(error)) this.failure = asFailure(error);
    }
  }

  /** Answers; what comes back says by whom it was answered in the end. */
  async answer(approval: Approval, body: Schemas['ApprovalAnswer']): Promise<Settled> {
    try {
      const answered = await api.post('/api/approvals/{id}', { path: { id: approval.id }, body });
      return this.#note({ approval: answered, by: 'here' });
    } catch (error) {
      if (asFailure(error).code !== 'already_answered') throw error;
      return this.#note({ approval: await api.get('/api/approvals/{id}', { path: { id: approval.id } }), by: 'elsewhere' });
    }
  }

  /** What was answered is old news on another page. */
  forget(): void {
    this.settled = [];
  }

  async #settle(id: string): Promise<void> {
    if (this.settled.some(({ approval }) => approval.id === id)) return;
    const approval = await api.get('/api/approvals/{id}', { path: { id } });
    if (approval.state !== 'pending') this.#note({ approval, by: 'elsewhere' });
  }

  #note(settled: Settled): Settled {
    const known = this.settled.find(({ approval }) => approval.id === settled.approval.id);
    if (known) return known;
    this.settled = [settled, ...this.settled];
    this.list = this.list?.filter(({ id }) => id !== settled.approval.id) ?? null;
    return settled;
  }
}

export const pending = new Pending();
