import { m } from '../../lib/i18n.svelte';
import type { Outcome } from './live.svelte';

/** How an answer ended that did not end by itself, and whether asking again is the next step. */
export function outcomeWords(outcome: Outcome): { tone: 'info' | 'warn' | 'bad'; text: string; again: boolean } | null {
  switch (outcome.outcome) {
    case 'done':
      return null;
    case 'stopped':
      return { tone: 'info', text: m.chat_stopped(), again: false };
    case 'interrupted':
      return { tone: 'warn', text: m.chat_interrupted(), again: true };
    case 'exhausted':
      return { tone: 'warn', text: m.chat_exhausted(), again: false };
    case 'failed':
      return { tone: 'bad', text: outcome.message, again: true };
  }
}
