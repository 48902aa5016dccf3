import type { Schemas } from '../../lib/api';

export type Key = Schemas['Key'];
export type KeyState = 'valid' | 'ending' | 'expired' | 'replaced' | 'revoked';

/** Where a key is in its life. One that was replaced and may still be used is `ending`. */
export function stateOf(key: Key, now = Date.now()): KeyState {
  if (key.revoked_at && key.revoked_at <= now) return key.replaced_by ? 'replaced' : 'revoked';
  if (key.expires_at && key.expires_at <= now) return key.replaced_by ? 'replaced' : 'expired';
  return key.expires_at || key.revoked_at ? 'ending' : 'valid';
}

export function isUsable(key: Key, now = Date.now()): boolean {
  const state = stateOf(key, now);
  return state === 'valid' || state === 'ending';
}

/** How a key is known without being told: its beginning and its end. */
export function shortKey(key: Pick<Key, 'environment' | 'last4'>): string {
  return `1k4_${key.environment}_…${key.last4}`;
}

/** What somebody typed for an amount: the Lab's text of it, `null` for nothing, `undefined` for no amount. */
export function parseAmount(typed: string): string | null | undefined {
  const text = typed.trim().replace(',', '.');
  if (text === '') return null;
  return /^\d{1,10}(\.\d{1,9})?$/.test(text) ? text : undefined;
}

/** What somebody typed for a count of at least one; as {@link parseAmount}. */
export function parseCount(typed: string): number | null | undefined {
  const text = typed.trim();
  if (text === '') return null;
  const value = Number(text);
  return /^\d{1,9}$/.test(text) && value > 0 ? value : undefined;
}

/** Names or beginnings of names, one to a line; `null` for all models. */
export function parseModels(typed: string): string[] | null {
  const lines = typed.split(/[\n,]/).map((line) => line.trim()).filter(Boolean);
  return lines.length === 0 ? null : lines;
}

const DAY_MS = 86_400_000;
/** When a day that was chosen ends, here. */
export function endOfDay(day: string): number | null {
  const begins = Date.parse(`${day}T00:00:00`);
  return Number.isNaN(begins) ? null : begins + DAY_MS - 1_000;
}

/** The day of a time, as a field for days has it. */
export function dayOf(at: number | null | undefined): string {
  if (!at) return '';
  const when = new Date(at);
  return [when.getFullYear(), when.getMonth() + 1, when.getDate()].map((part) => String(part).padStart(2, '0')).join('-');
}

export const scopes = ['inference', 'usage', 'manage'] as const satisfies Schemas['KeyScope'][];

/** A form for a key: everything as it is typed. */
export type Draft = {
  name: string;
  test: boolean;
  scopes: Record<Schemas['KeyScope'], boolean>;
  spending: Record<keyof Schemas['Spending'], string>;
  rates: Record<keyof Schemas['Rates'], string>;
  models: string;
  ends: string;
};

export function draftOf(key?: Key): Draft {
  const has = (scope: Schemas['KeyScope']): boolean => (key ? key.scopes.includes(scope) : scope !== 'manage');
  const text = (value: string | number | null | undefined): string => (value === null || value === undefined ? '' : String(value));
  return {
    name: key?.name ?? '',
    test: key?.environment === 'test',
    scopes: { inference: has('inference'), usage: has('usage'), manage: has('manage') },
    spending: { day: text(key?.spending.day), month: text(key?.spending.month), total: text(key?.spending.total) },
    rates: {
      requests_per_minute: text(key?.rates.requests_per_minute),
      tokens_per_minute: text(key?.rates.tokens_per_minute),
      concurrent: text(key?.rates.concurrent),
    },
    models: key?.models?.join('\n') ?? '',
    ends: dayOf(key?.expires_at),
  };
}

/** The fields that are not what they must be. */
export function mistakes(draft: Draft, now = Date.now()): Set<string> {
  const wrong = new Set<string>();
  if (draft.name.trim() === '' || [...draft.name.trim()].length > 100) wrong.add('name');
  for (const [name, typed] of Object.entries(draft.spending)) if (parseAmount(typed) === undefined) wrong.add(name);
  for (const [name, typed] of Object.entries(draft.rates)) if (parseCount(typed) === undefined) wrong.add(name);
  if (!scopes.some((scope) => draft.scopes[scope])) wrong.add('scopes');
  if (draft.ends !== '' && (endOfDay(draft.ends) ?? 0) <= now) wrong.add('ends');
  return wrong;
}

/** The terms that a draft without mistakes stands for. */
export function termsOf(draft: Draft) {
  const { spending, rates } = draft;
  const terms = {
    name: draft.name.trim(),
    scopes: scopes.filter((scope) => draft.scopes[scope]),
    spending: { day: parseAmount(spending.day) ?? null, month: parseAmount(spending.month) ?? null, total: parseAmount(spending.total) ?? null },
    rates: {
      requests_per_minute: parseCount(rates.requests_per_minute) ?? null,
      tokens_per_minute: parseCount(rates.tokens_per_minute) ?? null,
      concurrent: parseCount(rates.concurrent) ?? null,
    },
    models: parseModels(draft.models),
    expires_at: draft.ends === '' ? null : endOfDay(draft.ends),
  };
  return terms satisfies Schemas['NewKeyTerms'];
}

/** What a change of a key says: its terms, the scopes only where they differ, because more of them needs a fresh sign-in. */
export function changeOf(key: Key, draft: Draft): Schemas['KeyChange'] {
  const { scopes: wanted, expires_at, ...terms } = termsOf(draft);
  const same = scopes.every((scope) => wanted.includes(scope) === key.scopes.includes(scope));
  // The same day is not another end.
  const sameEnd = draft.ends === dayOf(key.expires_at);
  return { ...terms, ...(same ? {} : { scopes: wanted }), ...(sameEnd ? {} : { expires_at }) };
}
