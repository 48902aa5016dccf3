import { m } from '../../lib/i18n.svelte';
import type { Waiting } from './live.svelte';

/** Why an answer has not begun, or does not go on. */
export function waitingWords(waiting: Waiting | 'queued'): string {
  if (waiting === 'queued') return m.chat_waits_turn();
  switch (waiting.reason) {
    case 'asked':
      return m.chat_waits_asked();
    case 'queued':
      return m.chat_waits_queue({ n: waiting.ahead });
    case 'loading':
      return m.chat_waits_loading();
    case 'away':
      return m.chat_waits_away();
  }
}
