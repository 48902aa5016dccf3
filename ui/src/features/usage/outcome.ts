import type { Tone } from '../../kit';
import { m } from '../../lib/i18n.svelte';
import type { Request } from './sums';

/** How a request ended, as a state. Codes of errors are shown as they are: they are what people search for. */
export function outcome({ outcome: code }: Pick<Request, 'outcome'>): { tone: Tone; label: string } {
  if (code === 'complete') return { tone: 'good', label: m.usage_complete() };
  if (code === 'cancelled') return { tone: 'off', label: m.usage_cancelled() };
  return { tone: 'bad', label: code };
}
