import { describe, expect, test } from 'vitest';
import type { Schemas } from '../../lib/api';
import { asCode, isName, isWhole, machines } from './machines';

const device = (more: Partial<Schemas['Device']> = {}): Schemas['Device'] => ({
  id: 'dev_1', name: 'den', hostname: 'den.local', os: 'Debian 12', version: '0.1.0', created_at: 1, presence: 'online', availability: 'online', queued: 0, active: 0, models: 1, ...more,
});
const model = (name: string, more: object = {}): Schemas['ModelView'] => ({
  name, host: 'device', device: 'dev_1', device_name: 'den', availability: 'online', loaded: false, queued: 0, running: 0, size: 1, capabilities: [], unsure: [], ...more,
});
const stateOf = (more: Partial<Schemas['Device']>) => machines([device(more)], [])[0]?.state;

describe('a workstation', () => {
  test('is as the Lab says, and nobody knows since when where it had no link yet', () => {
    expect([stateOf({}), stateOf({ availability: 'paused' }), stateOf({ availability: 'away' })]).toEqual(['online', 'paused', 'away']);
    expect([stateOf({ availability: 'offline', last_seen: 5 }), stateOf({ availability: 'offline' })]).toEqual(['offline', 'unseen']);
  });

  test('knows only its own models, those in memory first', () => {
    const all = [
      model('local@den/a:7b'),
      model('local@den/b:latest', { loaded: true }),
      model('local@attic/c', { device: 'dev_2' }),
      { name: 'gpt', host: 'cloud', provider: 'openai', capabilities: [], unsure: [] } as Schemas['ModelView'],
    ];
    const [den] = machines([device({ active: 1, queued: 3 })], all);
    expect([den?.running, den?.queued, den?.models.map(({ short }) => short)]).toEqual([1, 3, ['b', 'a:7b']]);
  });
});

test('a code is read however it is typed', () => {
  expect([asCode('bcdf'), asCode('bcdfg'), asCode(' bcdf-ghjk '), asCode('bcdfghjkxx')]).toEqual(['BCDF', 'BCDF-G', 'BCDF-GHJK', 'BCDF-GHJK']);
  expect([isWhole('BCDF-GHJ'), isWhole('BCDF-GHJK')]).toEqual([false, true]);
});

test('a name is one that can stand in a model\'s', () => {
  expect([isName('den-2.local'), isName(''), isName('my den'), isName('a'.repeat(64))]).toEqual([true, false, false, false]);
});
