/** A run as somebody reads it: its events put together into what was said, thought, called and decided. */
import type { RunEvent } from '../../lib/events';
import type { Schemas } from '../../lib/api';

export type Call = {
  kind: 'call';
  call: string;
  tool: string;
  args: unknown;
  /** Which question was asked about it, and what came of that. */
  approval: { id: string; allowed: boolean | null } | null;
  result: { ok: boolean; text: string } | null;
};

export type Plan = { kind: 'plan'; approval: string; plan: string; allowed: boolean | null };

export type Words = { kind: 'text' | 'thoughts'; text: string };

export type Block = Words | Call | Plan;

export type Step = { number: number; model: string; began: number; waiting: Schemas['Waiting'] | null; blocks: Block[] };

export type Spent = { steps: number; tokens: number; nano: number; estimated: boolean; device: string | null };

export type Transcript = {
  steps: Step[];
  spent: Spent;
  /** When it began, and the time of its newest event. */
  began: number | null;
  latest: number | null;
  /** What its owner took to answer does not count as work. */
  waitedMs: number;
  asksSince: number | null;
  outcome: Schemas['Outcome'] | null;
};

export function empty(): Transcript {
  return {
    steps: [],
    spent: { steps: 0, tokens: 0, nano: 0, estimated: false, device: null },
    began: null,
    latest: null,
    waitedMs: 0,
    asksSince: null,
    outcome: null,
  };
}

/** Adds what happened, in order. Works on the very object, so that a page that shows it draws only what is new. */
export function add(run: Transcript, events: RunEvent[]): void {
  for (const event of events) {
    run.began ??= event.time;
    run.latest = event.time;
    addOne(run, event);
  }
}

function addOne(run: Transcript, event: RunEvent): void {
  const step = run.steps.at(-1);
  switch (event.type) {
    case 'asked':
      run.steps.push({ number: event.step, model: event.model, began: event.time, waiting: null, blocks: [] });
      run.spent.steps = Math.max(run.spent.steps, event.step);
      return;
    case 'waiting':
      if (step) step.waiting = event;
      return;
    case 'text':
      return say(step, 'text', event.text);
    case 'reasoning':
      return say(step, 'thoughts', event.text);
    case 'tool_call':
      step?.blocks.push({ kind: 'call', call: event.call, tool: event.tool, args: event.arguments, approval: null, result: null });
      if (step) step.waiting = null;
      return;
    case 'approval_asked': {
      const call = callOf(run, event.call);
      if (call) call.approval = { id: event.approval, allowed: null };
      run.asksSince = event.time;
      return;
    }
    case 'planned':
      step?.blocks.push({ kind: 'plan', approval: event.approval, plan: event.plan, allowed: null });
      run.asksSince = event.time;
      return;
    case 'approval_answered':
      return answer(run, event.approval, event.allowed, event.time);
    case 'tool_result': {
      const call = callOf(run, event.call);
      if (call) call.result = { ok: event.ok, text: event.text };
      return;
    }
    case 'used':
      if (step) step.waiting = null;
      run.spent.tokens += (event.usage.input_tokens ?? 0) + (event.usage.output_tokens ?? 0);
      run.spent.nano += event.usage.cost_nano;
      run.spent.estimated ||= event.usage.estimated;
      run.spent.device = event.usage.device ?? run.spent.device;
      return;
    case 'ended':
      run.outcome = event;
      run.asksSince = null;
      if (step) step.waiting = null;
  }
}

function say(step: Step | undefined, kind: 'text' | 'thoughts', text: string): void {
  if (!step) return;
  step.waiting = null;
  const last = step.blocks.at(-1);
  if (last?.kind === kind) last.text += text;
  else step.blocks.push({ kind, text });
}

function answer(run: Transcript, approval: string, allowed: boolean, time: number): void {
  if (run.asksSince !== null) run.waitedMs += time - run.asksSince;
  run.asksSince = null;
  for (const block of run.steps.flatMap((step) => step.blocks)) {
    if (block.kind === 'plan' && block.approval === approval) block.allowed = allowed;
    if (block.kind === 'call' && block.approval?.id === approval) block.approval.allowed = allowed;
  }
}

function callOf(run: Transcript, id: string): Call | undefined {
  for (const step of run.steps.toReversed()) {
    const found = step.blocks.find((block): block is Call => block.kind === 'call' && block.call === id);
    if (found) return found;
  }
  return undefined;
}

/** The question that waits for an answer now. */
export function asked(run: Transcript): string | null {
  if (run.outcome) return null;
  for (const block of run.steps.flatMap((step) => step.blocks).toReversed()) {
    if (block.kind === 'plan' && block.allowed === null) return block.approval;
    if (block.kind === 'call' && block.approval?.allowed === null) return block.approval.id;
  }
  return null;
}

/** Milliseconds at work until now, or until its end. */
export function worked(run: Transcript, now: number): number {
  if (run.began === null) return 0;
  const until = run.outcome ? (run.latest ?? now) : (run.asksSince ?? now);
  return Math.max(0, until - run.began - run.waitedMs);
}
