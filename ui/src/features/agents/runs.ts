/** Runs in words and shapes. */
import type { Tone } from '../../kit';
import type { Schemas } from '../../lib/api';
import { duration } from '../../lib/format';
import { m } from '../../lib/i18n.svelte';

export type RunState = Schemas['RunState'];

export const TONES: Record<RunState, Tone> = {
  queued: 'off',
  running: 'busy',
  waiting: 'warn',
  done: 'good',
  stopped: 'off',
  failed: 'bad',
  interrupted: 'bad',
  exhausted: 'warn',
};

export function stateWord(state: RunState): string {
  return {
    queued: m.agents_state_queued,
    running: m.agents_state_running,
    waiting: m.agents_state_waiting,
    done: m.agents_state_done,
    stopped: m.agents_state_stopped,
    failed: m.agents_state_failed,
    interrupted: m.agents_state_interrupted,
    exhausted: m.agents_state_exhausted,
  }[state]();
}

export function isLive(state: RunState): boolean {
  return state === 'queued' || state === 'running' || state === 'waiting';
}

/** A time that goes on, without the flicker of its fractions. */
export function wholeSeconds(ms: number): string {
  return ms < 1_000 ? '0 s' : duration(Math.floor(ms / 1_000) * 1_000);
}

export function budgetWord(budget: string): string {
  switch (budget) {
    case 'steps':
      return m.agents_budget_steps();
    case 'time':
      return m.agents_budget_time();
    case 'tokens':
      return m.agents_budget_tokens();
    default:
      return m.agents_budget_credits();
  }
}
