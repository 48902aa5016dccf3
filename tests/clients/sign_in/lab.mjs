// A Lab for one suite alone, with a configuration of its own.

import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A port that is free now. */
export async function freePort() {
  const server = createServer();
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

export class OwnLab {
  /** `config` makes the TOML out of the folder and the port. A Lab that was built for development starts slowly. */
  static async start(program, port, config) {
    const lab = new OwnLab();
    lab.program = program;
    lab.dir = mkdtempSync(join(tmpdir(), '1k4-'));
    lab.url = `https://localhost:${port}`;
    mkdirSync(join(lab.dir, 'data'), { mode: 0o700 });
    writeFileSync(join(lab.dir, 'secret'), 'a-client-secret-of-many-letters-and-digits-0123456789', { mode: 0o600 });
    writeFileSync(join(lab.dir, 'lab.toml'), config(lab.dir));
    const words = ['serve', '--json', '--listen', `127.0.0.1:${port}`, '--public-url', lab.url, ...lab.where()];
    lab.process = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'] });
    lab.said = '';
    lab.process.stderr.on('data', (text) => (lab.said += text));
    lab.ended = new Promise((ended) => lab.process.on('exit', ended));
    const up = new Promise((listening) => lab.process.stdout.once('data', listening));
    await Promise.race([up, lab.ended.then((code) => Promise.reject(new Error(`the Lab ended (${code}): ${lab.said}`)))]);
    lab.ca = readFileSync(join(lab.dir, 'data', 'ca.pem'), 'utf8');
    return lab;
  }

  where() {
    return ['--config', join(this.dir, 'lab.toml'), '--data-dir', join(this.dir, 'data')];
  }

  /** What `1k4-lab admin … --json` prints. */
  admin(...words) {
    return JSON.parse(execFileSync(this.program, ['admin', ...words, '--json', ...this.where()], { encoding: 'utf8' }));
  }

  /** Ends it as its owner would, and gives its exit code. */
  async end() {
    this.process.kill('SIGTERM');
    const code = await this.ended;
    rmSync(this.dir, { recursive: true, force: true });
    return code;
  }
}
