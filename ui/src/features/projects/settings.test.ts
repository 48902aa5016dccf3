import { expect, test } from 'vitest';
import type { Schemas } from '../../lib/api';
import { changesIn, draftOf, toNano, wrongIn } from './settings';

const project: Schemas['Project'] = {
  id: 'prj_1',
  name: 'Mosses',
  created_at: 0,
  exact_usage: false,
  rates: { requests_per_minute: 60, tokens_per_minute: null, concurrent: null },
};
const brief: Schemas['ProjectBrief'] = {
  version: 7,
  description: '',
  instructions: 'Metric units.',
  agents: { model: { model: 'local/a', temperature: 0.3 }, budgets: { steps: 50, seconds: 1800, tokens: 500_000, nano_credits: 500_000_000 }, web_fetch: false },
};
const draft = draftOf(project, brief);

test('a form that nobody touched changes nothing and has nothing wrong', () => {
  expect(draft).toMatchObject({ minutes: '30', credits: '0.5', rpm: '60', tpm: '' });
  expect(changesIn(draft, project, brief)).toEqual({ project: null, brief: null });
  expect(wrongIn(draft)).toEqual({});
});

test('sends only what is another, and the version that was seen', () => {
  expect(changesIn({ ...draft, instructions: 'Miles.' }, project, brief)).toEqual({ project: null, brief: { instructions: 'Miles.', version: 7 } });
  expect(changesIn({ ...draft, name: ' Lichens ', rpm: '' }, project, brief)).toEqual({
    project: { name: 'Lichens', rates: { requests_per_minute: null, tokens_per_minute: null, concurrent: null } },
    brief: null,
  });
});

test('keeps what a form does not show of the model, unless another is chosen', () => {
  const steps = changesIn({ ...draft, steps: '9', minutes: '1.5' }, project, brief).brief?.agents;
  expect(steps).toMatchObject({ model: { model: 'local/a', temperature: 0.3 }, budgets: { steps: 9, seconds: 90, tokens: 500_000 } });
  expect(changesIn({ ...draft, model: 'b' }, project, brief).brief?.agents?.model).toEqual({ model: 'b' });
  expect(changesIn({ ...draft, model: '' }, project, brief).brief?.agents?.model).toBeNull();
});

test('tells what is wrong where', () => {
  const bad = { ...draft, name: '  ', steps: '0', minutes: 'x', tokens: '1.5', credits: '1.2.3', rpm: '-1', description: 'ü'.repeat(2_050) };
  expect(wrongIn(bad)).toEqual({ name: 'name', steps: 'number', minutes: 'number', tokens: 'number', credits: 'amount', rpm: 'number', description: { over: 4 } });
});

test('amounts are exact', () => {
  expect(toNano('0.000000001')).toBe(1);
  expect(toNano('12,5')).toBe(12_500_000_000);
  expect(toNano('99999999')).toBeNull();
  expect(toNano('.5')).toBeNull();
});
