/** A download of a model to a workstation. It goes on as long as its answer is read. */
import { address, asFailure, send, type ApiFailure, type Schemas } from '../../lib/api';

export type Layer = { digest: string; completed: number; total: number };

export class Pull {
  /** What is being fetched; `null` while nothing is. */
  model = $state<string | null>(null);
  /** The step, in Ollama's words. */
  step = $state('');
  layers = $state.raw<Layer[]>([]);
  /** How the last one ended. */
  outcome = $state.raw<{ model: string; how: 'done' | 'cancelled' | 'broken'; why: string } | null>(null);
  /** Why the Lab would not begin. */
  failure = $state.raw<ApiFailure | null>(null);
  #over = new AbortController();

  constructor(private readonly device: string) {}

  async start(model: string): Promise<void> {
    this.#over = new AbortController();
    Object.assign(this, { model, step: '', layers: [], outcome: null, failure: null });
    try {
      const request = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ model }), signal: this.#over.signal };
      const response = await send(address('/api/devices/{id}/models/pull', { id: this.device }), request);
      let last: Schemas['PullStep'] | null = null;
      for await (const step of steps(response)) {
        last = step;
        if ('step' in step) {
          this.step = step.step;
          this.layers = withLayer(this.layers, step);
        }
      }
      const done = last !== null && 'step' in last && last.step === 'success';
      this.outcome = { model, how: done ? 'done' : 'broken', why: last !== null && 'error' in last ? last.error : '' };
    } catch (error) {
      if (this.#over.signal.aborted) this.outcome = { model, how: 'cancelled', why: '' };
      else this.failure = asFailure(error);
    } finally {
      this.model = null;
    }
  }

  /** Hangs up, which ends it. What has arrived is kept there. */
  cancel(): void {
    this.#over.abort();
  }
}

/** The layers with how far one of them is now. */
export function withLayer(layers: Layer[], { digest, total, completed }: { digest?: string | null; total?: number | null; completed?: number | null }): Layer[] {
  if (!digest || !total) return layers;
  const now = { digest, total, completed: completed ?? 0 };
  return layers.some((layer) => layer.digest === digest) ? layers.map((layer) => (layer.digest === digest ? now : layer)) : [...layers, now];
}

/** The lines of an answer, each as soon as it is whole. */
export async function* steps(response: Response): AsyncGenerator<Schemas['PullStep']> {
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  while (reader) {
    const { done, value } = await reader.read();
    const lines = (rest + decoder.decode(value, { stream: !done })).split('\n');
    rest = done ? '' : (lines.pop() ?? '');
    for (const line of lines) if (line.trim() !== '') yield JSON.parse(line) as Schemas['PullStep'];
    if (done) return;
  }
}
