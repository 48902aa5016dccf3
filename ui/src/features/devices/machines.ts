/** A workstation as a person sees it: what the Lab tells of its link together with what it tells of its models. */
import type { Schemas } from '../../lib/api';

type Local = Extract<Schemas['ModelView'], { host: 'device' }>;

/** `unseen` has had no link since the Lab started, so nobody knows when it was there last. */
export type MachineState = 'online' | 'busy' | 'paused' | 'ollama_down' | 'away' | 'offline' | 'unseen';

export type MachineModel = Local & {
  /** Without `local@name/`. */
  short: string;
};

export type Machine = {
  device: Schemas['Device'];
  state: MachineState;
  running: number;
  queued: number;
  lastSeen: number | null;
  /** Those in memory first, then by name. */
  models: MachineModel[];
};

export function machines(devices: Schemas['Device'][], list: Schemas['ModelView'][]): Machine[] {
  const local = list.filter((model): model is Local => model.host === 'device');
  return devices.map((device) => {
    const models = local
      .filter((model) => model.device === device.id)
      .map((model) => ({ ...model, short: shortName(model.name) }))
      .sort((a, b) => Number(b.loaded) - Number(a.loaded) || a.short.localeCompare(b.short));
    return { device, models, running: device.active, queued: device.queued, lastSeen: device.last_seen ?? null, state: stateOf(device) };
  });
}

function stateOf({ availability, last_seen: lastSeen }: Schemas['Device']): MachineState {
  return availability === 'offline' && lastSeen == null ? 'unseen' : availability;
}

/** `local@den/llama3.2:latest` as `llama3.2`. */
function shortName(name: string): string {
  return name.replace(/^local(@[^/]+)?\//, '').replace(/:latest$/, '');
}

/** What somebody types as a code, in the form in which it is shown: capitals, a dash in the middle, eight letters at most. */
export function asCode(typed: string): string {
  const letters = typed.toUpperCase().replace(/[^A-Z]/g, '').slice(0, CODE_LETTERS);
  return letters.length > CODE_LETTERS / 2 ? `${letters.slice(0, CODE_LETTERS / 2)}-${letters.slice(CODE_LETTERS / 2)}` : letters;
}

const CODE_LETTERS = 8;

export function isWhole(code: string): boolean {
  return code.replace('-', '').length === CODE_LETTERS;
}

/** Names that a workstation can have: they stand in models' names. */
export function isName(name: string): boolean {
  return /^[A-Za-z0-9._-]{1,63}$/.test(name);
}
