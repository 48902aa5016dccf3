/** One run, watched live. */
import { api, asFailure, type ApiFailure, type Schemas } from '../../lib/api';
import { follow, type StreamState } from '../../lib/events';
import { pending } from './approvals/pending.svelte';
import { isLive } from './runs';
import { add, asked, empty, type Transcript } from './transcript';

export class LiveRun {
  run = $state.raw<Schemas['RunDetail'] | null>(null);
  transcript = $state<Transcript>(empty());
  stream = $state<StreamState>('opening');
  failure = $state.raw<ApiFailure | null>(null);
  /** The time by which what goes on is measured. */
  now = $state(Date.now());
  /** Grows with each change of the project's tasks by this run. */
  taskChanges = $state(0);
  readonly asks = $derived(asked(this.transcript));
  readonly live = $derived(this.transcript.outcome === null && (this.run === null || isLive(this.run.state)));
  readonly state = $derived.by((): Schemas['RunState'] | null => {
    if (this.transcript.outcome) return this.transcript.outcome.outcome;
    if (this.asks) return 'waiting';
    return this.run && (this.run.state !== 'queued' || this.transcript.steps.length === 0) ? this.run.state : this.transcript.steps.length > 0 ? 'running' : null;
  });

  constructor(private readonly id: string) {}

  /** Watches for as long as an `$effect` lives. */
  start(): () => void {
    void this.#look();
    const leave = follow(this.id, 0, {
      onevents: (events) => {
        add(this.transcript, events);
        if (events.some(({ type }) => type === 'approval_asked' || type === 'planned' || type === 'approval_answered')) void pending.look();
        if (events.some(({ type }) => type === 'tool_result')) this.taskChanges += 1;
        if (events.at(-1)?.type === 'ended') void this.#look();
      },
      onstate: (state) => (this.stream = state),
      onfailure: (failure) => (this.failure = failure),
    });
    const clock = setInterval(() => (this.now = Date.now()), 1_000);
    return () => {
      leave();
      clearInterval(clock);
    };
  }

  async stop(): Promise<void> {
    await api.post('/api/runs/{id}/stop', { path: { id: this.id } });
  }

  async #look(): Promise<void> {
    try {
      this.run = await api.get('/api/runs/{id}', { path: { id: this.id } });
    } catch (error) {
      this.failure = asFailure(error);
    }
  }
}
