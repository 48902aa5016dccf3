/** What a run may use up. */
import type { Schemas } from '../../lib/api';

export type Budgets = Required<Schemas['Budgets']>;

/** What the Lab takes where nobody says otherwise. */
export const USUAL: Budgets = { steps: 50, seconds: 3_600, tokens: 2_000_000, nano_credits: 1_000_000_000 };

export const MOST: Budgets = { steps: 500, seconds: 43_200, tokens: 50_000_000, nano_credits: 100_000_000_000 };

/** What somebody writes into a form, by the name of the field. */
export type Written = { steps: string; minutes: string; tokens: string; credits: string };

export function written(budgets: Budgets): Written {
  return {
    steps: String(budgets.steps),
    minutes: String(Math.round(budgets.seconds / 60)),
    tokens: String(budgets.tokens),
    credits: String(budgets.nano_credits / 1e9),
  };
}

/** The budgets that were written, or the names of those fields that cannot be. */
export function read(fields: Written): { budgets: Budgets } | { wrong: (keyof Written)[] } {
  const number = (text: string): number => (/^\d+([.,]\d+)?$/.test(text.trim()) ? Number(text.trim().replace(',', '.')) : Number.NaN);
  const budgets: Budgets = {
    steps: number(fields.steps),
    seconds: Math.round(number(fields.minutes) * 60),
    tokens: number(fields.tokens),
    nano_credits: Math.round(number(fields.credits) * 1e9),
  };
  const within = (value: number, least: number, most: number): boolean => Number.isInteger(value) && value >= least && value <= most;
  const wrong = (
    [
      ['steps', within(budgets.steps, 1, MOST.steps)],
      ['minutes', within(budgets.seconds, 1, MOST.seconds)],
      ['tokens', within(budgets.tokens, 1, MOST.tokens)],
      ['credits', within(budgets.nano_credits, 0, MOST.nano_credits)],
    ] as const
  ).flatMap(([name, good]) => (good ? [] : [name]));
  return wrong.length > 0 ? { wrong } : { budgets };
}
