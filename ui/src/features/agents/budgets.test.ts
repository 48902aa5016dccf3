import { expect, test } from 'vitest';
import { read, USUAL, written } from './budgets';

test('what is written is what is read', () => {
  expect(read(written(USUAL))).toEqual({ budgets: USUAL });
  expect(read({ steps: '10', minutes: '0,5', tokens: '1000', credits: '0.05' })).toEqual({ budgets: { steps: 10, seconds: 30, tokens: 1_000, nano_credits: 50_000_000 } });
});

test('names what cannot be', () => {
  expect(read({ steps: '0', minutes: '', tokens: '1.5', credits: '101' })).toEqual({ wrong: ['steps', 'minutes', 'tokens', 'credits'] });
  expect(read({ steps: '501', minutes: '5', tokens: '-1', credits: '0' })).toEqual({ wrong: ['steps', 'tokens'] });
});
