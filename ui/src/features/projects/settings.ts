/** A project's settings as a form has them, and what of them is another than the Lab's. */
import type { Schemas } from '../../lib/api';
import { fromNano } from '../../lib/format';

type Project = Schemas['Project'];
type Brief = Schemas['ProjectBrief'];

export type Draft = {
  name: string;
  description: string;
  instructions: string;
  model: string;
  steps: string;
  minutes: string;
  tokens: string;
  credits: string;
  web: boolean;
  rpm: string;
  tpm: string;
  concurrent: string;
  exact: boolean;
};

export type Wrong = Partial<Record<keyof Draft, 'name' | 'number' | 'amount' | { over: number }>>;

/** Bytes that the Lab takes at most. */
export const MOST = { description: 4 * 1024, instructions: 64 * 1024 } as const;

export function draftOf(project: Project, brief: Brief): Draft {
  const { budgets, model, web_fetch } = brief.agents;
  const text = (value: number | null | undefined): string => (value === null || value === undefined ? '' : String(value));
  return {
    name: project.name,
    description: brief.description,
    instructions: brief.instructions,
    model: model?.model ?? '',
    steps: text(budgets?.steps),
    minutes: budgets?.seconds === undefined ? '' : text(Math.round((budgets.seconds / 60) * 100) / 100),
    tokens: text(budgets?.tokens),
    credits: budgets?.nano_credits === undefined ? '' : fromNano(budgets.nano_credits),
    web: web_fetch ?? false,
    rpm: text(project.rates.requests_per_minute),
    tpm: text(project.rates.tokens_per_minute),
    concurrent: text(project.rates.concurrent),
    exact: project.exact_usage,
  };
}

/** What the Lab would not take. */
export function wrongIn(draft: Draft): Wrong {
  const wrong: Wrong = {};
  const name = [...draft.name.trim()].length;
  if (name < 1 || name > 100) wrong.name = 'name';
  for (const field of ['description', 'instructions'] as const) {
    const over = new TextEncoder().encode(draft[field]).length - MOST[field];
    if (over > 0) wrong[field] = { over };
  }
  for (const field of ['steps', 'tokens'] as const) if (whole(draft[field]) === null) wrong[field] = 'number';
  for (const field of ['rpm', 'tpm', 'concurrent'] as const) if (draft[field].trim() !== '' && whole(draft[field]) === null) wrong[field] = 'number';
  if (seconds(draft.minutes) === null) wrong.minutes = 'number';
  if (toNano(draft.credits) === null) wrong.credits = 'amount';
  return wrong;
}

/** What is to be sent to each of the two addresses; `null` where nothing is another. */
export function changesIn(draft: Draft, project: Project, brief: Brief): { project: Schemas['ProjectChange'] | null; brief: Schemas['BriefChange'] | null } {
  const was = draftOf(project, brief);
  const other = (...fields: (keyof Draft)[]): boolean => fields.some((field) => draft[field] !== was[field]);

  const settings: Schemas['ProjectChange'] = {};
  if (other('name')) settings.name = draft.name.trim();
  if (other('exact')) settings.exact_usage = draft.exact;
  if (other('rpm', 'tpm', 'concurrent')) {
    settings.rates = { requests_per_minute: whole(draft.rpm), tokens_per_minute: whole(draft.tpm), concurrent: whole(draft.concurrent) };
  }

  const told: Schemas['BriefChange'] = {};
  if (other('description')) told.description = draft.description;
  if (other('instructions')) told.instructions = draft.instructions;
  if (other('model', 'steps', 'minutes', 'tokens', 'credits', 'web')) told.agents = agents(draft, brief.agents);

  const some = (change: object): boolean => Object.keys(change).length > 0;
  return { project: some(settings) ? settings : null, brief: some(told) ? { ...told, version: brief.version } : null };
}

// The Lab takes agents' terms as one, so what this form does not show goes back as it came.
function agents(draft: Draft, was: Schemas['AgentDefaults']): Schemas['AgentDefaults'] {
  const kept = was.model?.model === draft.model ? was.model : draft.model === '' ? null : { model: draft.model };
  const budgets = {
    ...was.budgets,
    steps: whole(draft.steps) ?? was.budgets?.steps,
    seconds: seconds(draft.minutes) ?? was.budgets?.seconds,
    tokens: whole(draft.tokens) ?? was.budgets?.tokens,
    nano_credits: toNano(draft.credits) ?? was.budgets?.nano_credits,
  };
  return { ...was, model: kept, budgets, web_fetch: draft.web };
}

function whole(text: string): number | null {
  const value = /^\d{1,15}$/.test(text.trim()) ? Number(text) : 0;
  return value > 0 ? value : null;
}

function seconds(minutes: string): number | null {
  const text = minutes.trim().replace(',', '.');
  const value = /^\d{1,7}(\.\d+)?$/.test(text) ? Math.round(Number(text) * 60) : 0;
  return value > 0 ? value : null;
}

/** Nano-credits of an amount such as `0.50` or `0,50`, exactly; `null` for what is none, or more than a number holds. */
export function toNano(text: string): number | null {
  const found = /^(\d{1,9})(?:[.,](\d{1,9}))?$/.exec(text.trim());
  if (!found) return null;
  const nano = BigInt(found[1] ?? '0') * 1_000_000_000n + BigInt((found[2] ?? '').padEnd(9, '0'));
  return nano <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(nano) : null;
}
