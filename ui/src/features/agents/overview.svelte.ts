/** Agents at work in all projects, as the Lab tells; and those that were, out of the newest conversations. */
import { api, asFailure, isAbort, type ApiFailure, type Schemas } from '../../lib/api';
import { onNews } from '../../lib/poll';

type Run = Schemas['Run'];

/** Conversations that are looked through at once for what was. */
const PAGE = 20;
const RUNS = 10;

export class Overview {
  projects = $state.raw<Schemas['Project'][]>([]);
  /** Newest first; `null` until the first answer. */
  live = $state.raw<Run[] | null>(null);
  past = $state.raw<Run[]>([]);
  failure = $state.raw<ApiFailure | null>(null);
  /** Where older ones go on; `null` where there are none. */
  next = $state.raw<string | null>(null);

  /** Of one project, or of all. */
  constructor(private readonly only?: Schemas['Project']) {}

  // A run that asks or goes on is in another state, without being news itself.
  start = (): (() => void) => onNews(['runs', 'approvals'], (signal) => this.look(signal));

  async look(signal?: AbortSignal): Promise<void> {
    try {
      const { data } = await api.get('/api/runs', { signal });
      const live = data.filter((run) => run.kind === 'agent' && (!this.only || run.project === this.only.id));
      if (this.live === null) await this.#begin(signal);
      else await this.#note(this.live.filter(({ id }) => !live.some((still) => still.id === id)), signal);
      this.live = live;
      this.failure = null;
    } catch (error) {
      if (!isAbort(error)) this.failure = asFailure(error);
    }
  }

  async older(): Promise<void> {
    try {
      this.past = merged(this.past, await this.#before(this.next));
    } catch (error) {
      this.failure = asFailure(error);
    }
  }

  async stop(run: string): Promise<void> {
    await api.post('/api/runs/{id}/stop', { path: { id: run } });
    await this.look();
  }

  async #begin(signal?: AbortSignal): Promise<void> {
    const [projects, past] = await Promise.all([this.only ? [this.only] : api.get('/api/projects', { signal }).then(({ data }) => data), this.#before(null, signal)]);
    this.projects = projects;
    this.past = merged([], past);
  }

  /** What has ended while somebody looked. One that was deleted meanwhile is gone. */
  async #note(ended: Run[], signal?: AbortSignal): Promise<void> {
    const found = await Promise.all(
      ended.map(({ id }) =>
        api.get('/api/runs/{id}', { path: { id }, signal }).catch((error: unknown) => {
          if (asFailure(error).status === 404) return null;
          throw error;
        }),
      ),
    );
    this.past = merged(found.filter((run) => run !== null), this.past);
  }

  async #before(cursor: string | null, signal?: AbortSignal): Promise<Run[]> {
    const page = await api.get('/api/conversations', { query: { cursor: cursor ?? undefined, limit: PAGE, project: this.only?.id }, signal });
    const runs = await Promise.all(page.data.map(({ id }) => api.get('/api/conversations/{id}/runs', { path: { id }, query: { limit: RUNS }, signal })));
    this.next = page.next ?? null;
    return runs.flatMap(({ data }) => data).filter(({ kind, ended_at: ended }) => kind === 'agent' && ended != null);
  }
}

/** Each once, the newest first. */
export function merged(some: Run[], others: Run[]): Run[] {
  const all = new Map([...others, ...some].map((run) => [run.id, run]));
  return [...all.values()].sort((a, b) => b.created_at - a.created_at);
}
