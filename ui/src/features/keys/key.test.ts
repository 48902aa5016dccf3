import { describe, expect, it } from 'vitest';
import { changeOf, dayOf, draftOf, endOfDay, mistakes, parseAmount, parseCount, parseModels, stateOf, termsOf, type Key } from './key';

const key: Key = {
  kid: 'K1',
  project: 'P1',
  name: 'laptop',
  last4: 'abcd',
  created_at: 1,
  environment: 'live',
  scopes: ['inference', 'usage'],
  spending: { day: '1.5', month: null, total: null },
  rates: { concurrent: null, requests_per_minute: 60, tokens_per_minute: null },
  models: ['local/*'],
  expires_at: null,
};

describe('a key', () => {
  it('is valid, ends, and is over', () => {
    expect(stateOf(key, 100)).toBe('valid');
    expect(stateOf({ ...key, expires_at: 200 }, 100)).toBe('ending');
    expect(stateOf({ ...key, expires_at: 50 }, 100)).toBe('expired');
    expect(stateOf({ ...key, expires_at: 50, replaced_by: 'K2' }, 100)).toBe('replaced');
    expect(stateOf({ ...key, revoked_at: 50 }, 100)).toBe('revoked');
  });
});

describe('what was typed', () => {
  it('is an amount in either spelling, nothing, or a mistake', () => {
    expect(parseAmount(' 12,5 ')).toBe('12.5');
    expect(parseAmount('')).toBeNull();
    for (const typed of ['-1', '1.2.3', '1e3', '0x10', 'ten', '1.0000000001']) expect(parseAmount(typed), typed).toBeUndefined();
  });
  it('is a count from one on', () => {
    expect(parseCount('60')).toBe(60);
    for (const typed of ['0', '-1', '1.5', 'x']) expect(parseCount(typed), typed).toBeUndefined();
  });
  it('is a list of models by line or comma', () => {
    expect(parseModels('local/*\n gpt-5.5, \n')).toEqual(['local/*', 'gpt-5.5']);
    expect(parseModels(' \n')).toBeNull();
  });
});

describe('a draft', () => {
  it('of a key says the same as the key', () => {
    const { scopes: _, ...terms } = termsOf(draftOf(key));
    expect(terms).toEqual({ name: 'laptop', spending: key.spending, rates: key.rates, models: ['local/*'], expires_at: null });
  });
  it('changes only the scopes that differ', () => {
    const draft = draftOf(key);
    expect(changeOf(key, draft)).not.toHaveProperty('scopes');
    draft.scopes.manage = true;
    expect(changeOf(key, draft).scopes).toEqual(['inference', 'usage', 'manage']);
  });
  it('names its mistakes', () => {
    const draft = draftOf();
    draft.spending.day = 'a lot';
    draft.scopes = { inference: false, usage: false, manage: false };
    draft.ends = '2000-01-01';
    expect([...mistakes(draft)].sort()).toEqual(['day', 'ends', 'name', 'scopes']);
  });
  it('ends with a day where the reader is', () => {
    expect(dayOf(endOfDay('2027-03-28'))).toBe('2027-03-28');
    expect(endOfDay('soon')).toBeNull();
  });
});
