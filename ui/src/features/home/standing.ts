/** How things stand: what the first page says of workstations, in one line each. */
import type { Schemas } from '../../lib/api';

type Local = Extract<Schemas['ModelView'], { host: 'device' }>;
export type Standing = 'here' | 'busy' | 'paused' | 'ollama_down' | 'away' | 'offline';
export type Workstation = {
  id: string;
  name: string;
  standing: Standing;
  active: number;
  queued: number;
  offered: number;
  /** Those in memory, what runs first. */
  loaded: { name: string; running: number }[];
  lastSeen: number | null;
};

export function workstations(devices: Schemas['Device'][], models: Schemas['ModelView'][]): Workstation[] {
  return devices.map((device) => {
    const own = models.filter((model): model is Local => model.host === 'device' && model.device === device.id);
    const loaded = own.filter((model) => model.loaded || model.running > 0).sort((a, b) => b.running - a.running);
    return {
      id: device.id,
      name: device.name,
      standing: standing(device, own),
      active: device.active,
      queued: own.reduce((sum, model) => sum + model.queued, 0),
      offered: device.models,
      loaded: loaded.map((model) => ({ name: model.name.replace(/^local@[^/]*\//, ''), running: model.running })),
      lastSeen: own[0]?.last_seen ?? null,
    };
  });
}

function standing(device: Schemas['Device'], own: Local[]): Standing {
  if (device.presence !== 'online') return device.presence;
  const said = own[0]?.availability;
  if (said === 'paused' || said === 'ollama_down') return said;
  return device.active > 0 || said === 'busy' ? 'busy' : 'here';
}
