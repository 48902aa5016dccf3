// A real `1k4-bridge` on a machine of its own: its state and its key lie in a folder that goes with the world.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from './lab.ts';
import { Program } from './program.ts';
import { Road } from './road.ts';

/** What it shows while it waits to be paired. */
export interface Pairing {
  user_code: string;
  /** Four words that the page must show too. */
  fingerprint: string;
}

export class Workstation {
  private login: Program | undefined;
  private bridge: Program | undefined;

  private constructor(
    private readonly path: string,
    private readonly folder: string,
    private readonly lab: Lab,
    readonly name: string,
    /** What lies between it and the Lab. */
    readonly road: Road,
  ) {}

  static async unpaired(programs: string, folder: string, lab: Lab, ollama: string, name: string): Promise<Workstation> {
    mkdirSync(folder, { mode: 0o700 });
    const settings = { lab: lab.origin, ca_file: lab.caFile, ollama_host: ollama, device_name: name, credential_store: 'insecure-file' };
    const lines = Object.entries(settings).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`);
    writeFileSync(join(folder, 'config.toml'), lines.join(''));
    return new Workstation(`${programs}/1k4-bridge`, folder, lab, name, await Road.open());
  }

  /** Asks to be paired, as `1k4-bridge login` does, and gives what it shows. */
  async showCode(): Promise<Pairing> {
    this.login = this.command('login', this.lab.origin, '--insecure-file-store', '--json', '--ca-file', this.lab.caFile);
    return this.login.hears('a code', (line) => {
      const said = line.startsWith('{') ? (JSON.parse(line) as Partial<Pairing>) : {};
      return said.user_code !== undefined && said.fingerprint !== undefined ? (said as Pairing) : undefined;
    });
  }

  /** Waits for its owner's answer. */
  async paired(): Promise<void> {
    const code = await this.login?.ended();
    if (code !== 0) throw new Error(`1k4-bridge login failed (${code}): ${this.login?.said()}`);
  }

  turnOn(): void {
    this.bridge = this.command('run');
  }

  /** It says good-bye to its Lab. */
  async turnOff(): Promise<void> {
    await this.bridge?.end();
  }

  /** The cable is pulled: the Lab and the bridge hear nothing of each other any more. */
  pullCable(): void {
    this.road.block();
  }

  plugIn(): void {
    this.road.unblock();
  }

  /** What the bridge has printed lately. */
  said(): string {
    return this.bridge?.said() ?? '';
  }

  async end(): Promise<void> {
    await Promise.all([this.bridge?.end(), this.login?.runs === true ? this.login.end() : undefined]);
    await this.road.close();
  }

  private command(...words: string[]): Program {
    const where = ['--config', join(this.folder, 'config.toml'), '--state-dir', this.folder];
    return Program.start('1k4-bridge', this.path, [...words, ...where], { env: { HTTPS_PROXY: this.road.url } });
  }
}
