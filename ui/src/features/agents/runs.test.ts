import { expect, test } from 'vitest';
import type { Schemas } from '../../lib/api';
import { rows } from './runs';

const operation = (action: Schemas['Action'], target: string, args: Record<string, unknown>, time: number): Schemas['OperationView'] => ({
  seq: time, time, action, target, arguments: args as never, actor: { type: 'agent', run: target, model: 'local/m' }, approval: { by: 'nobody' }, result: { outcome: 'done' }, cost: '0', hash: '',
});

test('a run is over as its end says, and live without one', () => {
  const started = [operation('run_started', 'run_2', { conversation: 'con_2' }, 20), operation('run_started', 'run_1', { conversation: 'con_1' }, 10)];
  const ended = [operation('run_ended', 'run_1', { outcome: { outcome: 'exhausted', budget: 'steps' }, cost_nano_in_all: 7 }, 15)];
  expect(rows('prj', started, ended)).toEqual([
    { id: 'run_2', project: 'prj', conversation: 'con_2', model: 'local/m', began: 20, ended: null, state: 'running', nano: 0 },
    { id: 'run_1', project: 'prj', conversation: 'con_1', model: 'local/m', began: 10, ended: 15, state: 'exhausted', nano: 7 },
  ]);
});

test('what does not tell its conversation is left out', () => {
  expect(rows('prj', [operation('run_started', 'run_1', {}, 1)], [])).toEqual([]);
});
