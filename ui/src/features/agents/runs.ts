/** Runs in words and shapes, and the list of a project's agents out of its operation log. */
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

/** An agent's work in a list. */
export type Row = {
  id: string;
  project: string;
  conversation: string;
  model: string;
  began: number;
  ended: number | null;
  state: RunState;
  nano: number;
};

/** What began, with what is known of its end; the newest first. Without an end its state is for somebody to ask. */
export function rows(project: string, started: Schemas['OperationView'][], ended: Schemas['OperationView'][]): Row[] {
  const ends = new Map(ended.map((operation) => [operation.target, operation]));
  return started.flatMap((operation): Row[] => {
    const { target, arguments: args, actor, time } = operation;
    const conversation = textOf(args, 'conversation');
    if (!target || conversation === undefined || actor.type !== 'agent') return [];
    const end = ends.get(target);
    return [{ id: target, project, conversation, model: actor.model, began: time, ended: end?.time ?? null, state: end ? outcomeOf(end) : 'running', nano: costOf(end) }];
  });
}

function outcomeOf({ arguments: args }: Schemas['OperationView']): RunState {
  const word = textOf(valueOf(args, 'outcome'), 'outcome');
  const known = (['done', 'stopped', 'failed', 'interrupted', 'exhausted'] as const).find((state) => state === word);
  return known ?? 'done';
}

function costOf(end: Schemas['OperationView'] | undefined): number {
  const cost = valueOf(end?.arguments, 'cost_nano_in_all');
  return typeof cost === 'number' ? cost : 0;
}

function valueOf(from: unknown, name: string): unknown {
  return typeof from === 'object' && from !== null ? (from as Record<string, unknown>)[name] : undefined;
}

function textOf(from: unknown, name: string): string | undefined {
  const value = valueOf(from, name);
  return typeof value === 'string' ? value : undefined;
}
