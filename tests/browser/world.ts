// A whole 1K4 on this machine: a real Lab, real bridges paired to it, a fake Ollama and fake cloud providers. Each is a program, found
// in the folder that ONEK4_PROGRAMS names (default: target/debug of the workspace).

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Ability, FakeOllama, FakeProviders } from './world/fakes.ts';
import { Lab } from './world/lab.ts';
import { Person } from './world/person.ts';
import { Workstation } from './world/workstation.ts';

const PROGRAMS = process.env['ONEK4_PROGRAMS'] ?? join(import.meta.dirname, '../../target/debug');

/** Models that the fake Ollama has beside its own. Letters in a name say how it answers. */
const MODELS: Record<string, Ability[]> = {
  'llama3.2:3b': ['completion', 'tools'],
  'qwen3:30b': ['completion', 'tools', 'thinking'],
  'gemma3:12b': ['completion', 'vision'],
  'test-slow-d25000': ['completion', 'tools'],
  'test-fast': ['completion'],
  'test-fast-d1000': ['completion'],
  'test-slow-d6000': ['completion'],
  'test-cold-l4000': ['completion'],
};

export class World {
  private readonly people: Person[] = [];
  private machines = 0;

  private constructor(
    private readonly folder: string,
    readonly lab: Lab,
    readonly ollama: FakeOllama,
    readonly providers: FakeProviders,
  ) {}

  static async start(): Promise<World> {
    const folder = mkdtempSync(join(tmpdir(), '1k4-browser-'));
    // Also where something does not start. The programs themselves end with this process.
    process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
    const [ollama, providers] = await Promise.all([FakeOllama.start(PROGRAMS), FakeProviders.start(PROGRAMS)]);
    for (const [model, abilities] of Object.entries(MODELS)) await ollama.add(model, abilities);
    const lab = await Lab.start(PROGRAMS, folder, providers);
    return new World(folder, lab, ollama, providers);
  }

  /** The address that browsers open. */
  get origin(): string {
    return this.lab.origin;
  }

  /** Somebody whom nobody has met: an address that has no account yet. */
  newPerson(name = 'ada'): Person {
    const number = this.people.length + 1;
    const person = new Person(this, `127.78.${(number >> 8) + 1}.${(number & 255) || 1}`, `${name}.${number}@example.com`);
    this.people.push(person);
    return person;
  }

  /** A machine with a bridge that belongs to nobody yet. */
  newWorkstation(name: string): Promise<Workstation> {
    this.machines += 1;
    return Workstation.unpaired(PROGRAMS, join(this.folder, `bridge-${this.machines}`), this.lab, this.ollama.url, name);
  }

  killLab(): Promise<void> {
    return this.lab.kill();
  }

  restartLab(): Promise<void> {
    return this.lab.start();
  }

  /** Ends all of it. The bridges take their leave from a Lab that still listens. */
  async end(): Promise<void> {
    await Promise.all(this.people.map((person) => person.leave()));
    await this.lab.end();
    await Promise.all([this.ollama.end(), this.providers.end()]);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
