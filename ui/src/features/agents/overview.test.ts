import { expect, test } from 'vitest';
import type { Schemas } from '../../lib/api';
import { merged } from './overview.svelte';

const run = (id: string, created_at: number, state: Schemas['RunState'] = 'done'): Schemas['Run'] => ({
  id, created_at, state, project: 'p', conversation: 'c', message: 'm', kind: 'agent', last_seq: 1, cost: '0', cost_nano: 0,
});

test('each run is listed once, as it was told last, the newest first', () => {
  expect(merged([run('b', 2, 'stopped')], [run('a', 1), run('b', 2), run('c', 3)]).map(({ id, state }) => `${id} ${state}`)).toEqual(['c done', 'b stopped', 'a done']);
});
