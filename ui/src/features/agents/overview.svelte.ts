/**
 * Agents at work in all projects, and those that were. The Lab lists runs by conversation only, so this is put together: what began and
 * what ended out of each project's operation log, and how it stands of each run that has no end there.
 */
import { api, asFailure, isAbort, type ApiFailure, type Schemas } from '../../lib/api';
import { poll } from '../../lib/poll';
import { isLive, rows, type Row } from './runs';

const EVERY_MS = 2_000;
/** The logs are read anew every so many rounds; a run that begins elsewhere is seen that much later. */
const LOGS_EVERY = 4;
const AT_FIRST = 30;
const MOST = 200;

export class Overview {
  projects = $state.raw<Schemas['Project'][]>([]);
  /** Newest first; `null` until the first answer. */
  rows = $state.raw<Row[] | null>(null);
  failure = $state.raw<ApiFailure | null>(null);
  limit = $state(AT_FIRST);
  /** Whether there may be older ones. */
  readonly more = $derived(this.limit < MOST && (this.rows?.length ?? 0) >= this.limit);
  #round = 0;

  /** Of one project, or of all. */
  constructor(private readonly only?: Schemas['Project']) {}

  start = (): (() => void) => poll(EVERY_MS, (signal) => this.look(signal));

  async look(signal?: AbortSignal): Promise<void> {
    try {
      const known = this.#round % LOGS_EVERY === 0 || this.rows === null ? await this.#logged(signal) : this.rows;
      this.#round += 1;
      this.rows = await Promise.all(known.map((row) => (row.ended === null ? this.#now(row, signal) : row)));
      this.failure = null;
    } catch (error) {
      if (!isAbort(error)) this.failure = asFailure(error);
    }
  }

  async older(): Promise<void> {
    this.limit = Math.min(this.limit + AT_FIRST, MOST);
    this.#round = 0;
    await this.look();
  }

  async stop(run: string): Promise<void> {
    await api.post('/api/runs/{id}/stop', { path: { id: run } });
    await this.look();
  }

  async #logged(signal?: AbortSignal): Promise<Row[]> {
    this.projects = this.only ? [this.only] : (await api.get('/api/projects', { signal })).data;
    const lists = await Promise.all(
      this.projects.map(async ({ id }) => {
        const page = (action: Schemas['Action']) => api.get('/api/projects/{id}/operations', { path: { id }, query: { action, limit: this.limit }, signal });
        const [started, ended] = await Promise.all([page('run_started'), page('run_ended')]);
        return rows(id, started.data, ended.data);
      }),
    );
    return lists.flat().sort((a, b) => b.began - a.began);
  }

  async #now(row: Row, signal?: AbortSignal): Promise<Row> {
    try {
      const run = await api.get('/api/runs/{id}', { path: { id: row.id }, signal });
      return { ...row, state: run.state, nano: run.cost_nano, ended: isLive(run.state) ? null : (run.ended_at ?? run.created_at) };
    } catch (error) {
      // Deleted with its conversation; the log still has that it began.
      if (asFailure(error).status === 404) return { ...row, state: 'done', ended: row.began };
      throw error;
    }
  }
}
