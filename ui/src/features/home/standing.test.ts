import { describe, expect, it } from 'vitest';
import type { Schemas } from '../../lib/api';
import { workstations } from './standing';

const device = (more: Partial<Schemas['Device']> = {}): Schemas['Device'] => ({
  id: 'd1', name: 'den', hostname: 'den', os: 'linux', version: '1', created_at: 1, presence: 'online', availability: 'online', queued: 0, active: 0, models: 2, ...more,
});
const model = (name: string, more: object = {}) =>
  ({ name, host: 'device', device: 'd1', device_name: 'den', availability: 'online', loaded: false, queued: 0, running: 0, size: 1, capabilities: [], unsure: [], ...more }) as Schemas['ModelView'];

describe('workstations', () => {
  it('say what they do, from their link and their models', () => {
    expect(workstations([device()], [])[0]?.standing).toBe('here');
    expect(workstations([device({ active: 1 })], [])[0]?.standing).toBe('busy');
    expect(workstations([device()], [model('local@den/a', { availability: 'paused' })])[0]?.standing).toBe('paused');
    // What its models were last said to be does not count once its link is gone.
    expect(workstations([device({ presence: 'offline' })], [model('local@den/a', { availability: 'paused', last_seen: 9 })])[0]).toMatchObject({ standing: 'offline', lastSeen: 9 });
  });
  it('name what is in memory, what runs first', () => {
    const [den] = workstations([device()], [model('local@den/a', { loaded: true }), model('local@den/b:7b', { loaded: true, running: 2, queued: 3 }), model('local@den/c'), model('local@attic/d', { device: 'd2', loaded: true })]);
    expect(den?.loaded).toEqual([{ name: 'b:7b', running: 2 }, { name: 'a', running: 0 }]);
    expect(den?.queued).toBe(3);
  });
});
