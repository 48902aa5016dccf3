// Somebody's own browser without a screen: what a test prepares or looks up without a page goes through it.

import { Agent, request } from 'node:https';
import { readFileSync } from 'node:fs';

export interface Answer {
  status: number;
  text: string;
}

export class Client {
  private readonly agent: Agent;
  private readonly jar = new Map<string, string>();

  constructor(
    private readonly origin: string,
    caFile: string,
    /** Where its connections come from: the Lab rations tries by address. */
    localAddress: string,
  ) {
    this.agent = new Agent({ ca: readFileSync(caFile), keepAlive: true, localAddress });
  }

  async ask(method: string, path: string, body?: unknown, more: Record<string, string> = {}): Promise<Answer> {
    const raw = body instanceof Uint8Array;
    const bytes = body === undefined ? undefined : raw ? body : Buffer.from(JSON.stringify(body));
    const headers: Record<string, string> = { 'sec-fetch-site': 'same-origin', cookie: this.cookies(), ...more };
    if (method !== 'GET') headers['content-type'] = raw ? 'application/octet-stream' : 'application/json';
    return new Promise((resolve, reject) => {
      const going = request(`${this.origin}${path}`, { method, agent: this.agent, headers }, (answer) => {
        for (const line of answer.headers['set-cookie'] ?? []) this.keep(line);
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk));
        answer.on('error', reject);
        answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(chunks).toString() }));
      });
      going.on('error', reject);
      going.end(bytes);
    });
  }

  /** The JSON of an answer that must be a good one. */
  async json<T>(method: string, path: string, body?: unknown, more: Record<string, string> = {}): Promise<T> {
    const { status, text } = await this.ask(method, path, body, more);
    if (status < 200 || status > 299) throw new Error(`${method} ${path}: ${status} ${text}`);
    return (text === '' ? undefined : JSON.parse(text)) as T;
  }

  /** The session's cookie, for a page that is to be signed in without the ceremony. */
  session(): { name: string; value: string } {
    const name = '__Host-1k4s';
    const value = this.jar.get(name);
    if (value === undefined) throw new Error('nobody is signed in');
    return { name, value };
  }

  close(): void {
    this.agent.destroy();
  }

  private cookies(): string {
    return [...this.jar].map(([name, value]) => `${name}=${value}`).join('; ');
  }

  private keep(line: string): void {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
    if (name === undefined || value === undefined) return;
    if (value === '') this.jar.delete(name);
    else this.jar.set(name, value);
  }
}
