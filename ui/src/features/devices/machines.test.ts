import { describe, expect, test } from 'vitest';
import type { Schemas } from '../../lib/api';
import { asCode, isName, isWhole, machines } from './machines';

const device = (more: Partial<Schemas['Device']> = {}): Schemas['Device'] => ({
  id: 'dev_1', name: 'den', hostname: 'den.local', os: 'Debian 12', version: '0.1.0', created_at: 1, presence: 'online', availability: 'online', queued: 0, active: 0, models: 1, ...more,
});
const model = (name: string, more: object = {}): Schemas['ModelView'] => ({
  name, host: 'device', device: 'dev_1', device_name: 'den', availability: 'online', loaded: false, queued: 0, running: 0, size: 1, capabilities: [], unsure: [], ...more,
});
const stateOf = (presence: 'online' | 'away' | 'offline', ...models: Schemas['ModelView'][]) => machines([device({ presence })], models)[0]?.state;

describe('a workstation', () => {
  test('is as its link and its models say together', () => {
    expect(stateOf('online')).toBe('online');
    expect(stateOf('online', model('local@den/a', { availability: 'busy' }))).toBe('busy');
    expect(stateOf('online', model('local@den/a', { availability: 'paused' }))).toBe('paused');
    expect(stateOf('online', model('local@den/a', { availability: 'ollama_down' }))).toBe('ollama_down');
    expect(stateOf('away', model('local@den/a'))).toBe('away');
    expect(stateOf('offline', model('local@den/a', { last_seen: 5 }))).toBe('offline');
    expect(stateOf('offline')).toBe('unseen');
  });

  test('counts what it does, and knows only its own models, those in memory first', () => {
    const all = [
      model('local@den/b:latest', { running: 1, queued: 2, loaded: true }),
      model('local@den/a:7b', { queued: 1 }),
      model('local@attic/c', { device: 'dev_2' }),
      { name: 'gpt', host: 'cloud', provider: 'openai', capabilities: [], unsure: [] } as Schemas['ModelView'],
    ];
    const [den] = machines([device({ active: 1 })], all);
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
