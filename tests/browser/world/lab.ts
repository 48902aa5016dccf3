// A real `1k4-lab` in a folder that goes with it. It can be killed and started again; what it knows stays.

import { execFile } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { FakeProviders } from './fakes.ts';
import { Program } from './program.ts';

/** Cloud models of this world, by the fake that has them. Letters in a name say how it answers, as with the fake Ollama. */
const CLOUD_MODELS = {
  'openai.com': { provider: 'openai', kind: 'openai', models: ['gpt-5.5', 'gpt-fake-n400-d20000'] },
  'anthropic.com': { provider: 'anthropic', kind: 'anthropic', models: ['claude-sonnet-4-6', 'claude-haiku-4-5'] },
  'googleapis.com': { provider: 'google', kind: 'gemini', models: ['gemini-3-flash'] },
} as const;

export class Lab {
  private program: Program | undefined;

  private constructor(
    private readonly path: string,
    private readonly folder: string,
    private readonly port: number,
  ) {}

  static async start(programs: string, folder: string, providers: FakeProviders): Promise<Lab> {
    mkdirSync(join(folder, 'data'), { mode: 0o700 });
    const lab = new Lab(`${programs}/1k4-lab`, folder, await freePort());
    writeFileSync(join(folder, 'lab.toml'), lab.configuration(providers));
    await lab.start();
    return lab;
  }

  /** The address that people know. */
  get origin(): string {
    return `https://localhost:${this.port}`;
  }

  get caFile(): string {
    return join(this.folder, 'data', 'ca.pem');
  }

  /** What Chromium is told so that it trusts this certificate, and pages may do all that they may do on a public Lab. */
  trust(): string[] {
    const { publicKey } = new X509Certificate(readFileSync(join(this.folder, 'data', 'leaf.pem')));
    const hash = createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
    return [`--ignore-certificate-errors-spki-list=${hash}`];
  }

  /** Where its letters are put. */
  get outbox(): string {
    return join(this.folder, 'data', 'outbox');
  }

  async start(): Promise<void> {
    this.program = Program.start('1k4-lab', this.path, ['serve', '--json', ...this.where()]);
    await this.program.hears('listening', (line) => (line.startsWith('{') ? line : undefined));
  }

  /** Power fails. */
  async kill(): Promise<void> {
    await this.program?.kill();
  }

  async end(): Promise<void> {
    await this.program?.end();
  }

  /** What it has printed lately. */
  said(): string {
    return this.program?.said() ?? '';
  }

  /** What `1k4-lab admin … --json` prints. */
  async admin(...words: string[]): Promise<unknown> {
    const { stdout } = await promisify(execFile)(this.path, ['admin', ...words, '--json', ...this.where()]);
    return stdout.trim() === '' ? undefined : (JSON.parse(stdout) as unknown);
  }

  /** A link that signs its owner in once, in any browser, without a letter. */
  async invite(address: string): Promise<{ link: string }> {
    return (await this.admin('users', 'invite', '--email', address)) as { link: string };
  }

  /** The links in the letters to this address, the oldest first. */
  links(address: string): string[] {
    const letters = listed(this.outbox).map((name) => readFileSync(join(this.outbox, name), 'utf8'));
    const theirs = letters.filter((text) => text.startsWith(`To: ${address}\n`));
    return theirs.flatMap((text) => /https:\S+#link=\S+/.exec(text)?.[0] ?? []);
  }

  private configuration(providers: FakeProviders): string {
    const text = [`listen = "127.0.0.1:${this.port}"`, `public_url = "${this.origin}"`, '[sign_in]', 'registration = "open"'];
    // Whoever asks a cloud model pays for it, so that prices show.
    text.push('[trial]', 'free_requests = 0', '[limits]', 'requests_per_minute = 100000', 'concurrent = 1000');
    for (const [fake, { provider, kind, models }] of Object.entries(CLOUD_MODELS)) {
      const { url, key } = providers.of(fake);
      const secret = join(this.folder, fake);
      writeFileSync(secret, key);
      chmodSync(secret, 0o600);
      text.push('[[providers]]', `name = "${provider}"`, '[[providers.channels]]', `name = "${provider}-1"`, `kind = "${kind}"`);
      text.push(`base_url = "${url}"`, `secret = { file = ${JSON.stringify(secret)} }`, `models = ${JSON.stringify(models)}`);
      for (const id of models) {
        text.push('[[models]]', `id = "${id}"`, `provider = "${provider}"`, 'max_input = 200000', 'max_output = 16000');
        text.push('usd_per_mtok = { input = "2", cached = "0.2", cache_write_short = "2.5", cache_write_long = "4", output = "10" }');
      }
    }
    return `${text.join('\n')}\n`;
  }

  private where(): string[] {
    return ['--config', join(this.folder, 'lab.toml'), '--data-dir', join(this.folder, 'data')];
  }
}

function listed(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    // Made with the first letter.
    return [];
  }
}

/** A port that is free now. The Lab has to know its own address before it listens. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const address = server.address();
  await new Promise((closed) => server.close(closed));
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}
