// Somebody with an account: they get letters, have credits, own workstations.

import type { Page } from '@playwright/test';
import { Client } from './client.ts';
import { until } from './until.ts';
import type { Workstation } from './workstation.ts';
import type { World } from '../world.ts';

export interface Device {
  id: string;
  name: string;
  presence: 'online' | 'away' | 'offline';
  models: number;
}

export class Person {
  private readonly read = new Set<string>();
  private lastKnown: Client | undefined;
  readonly workstations: Workstation[] = [];

  constructor(
    private readonly world: World,
    /** An address of this machine that their connections come from. */
    private readonly from: string,
    readonly address: string,
  ) {}

  /** The link of the next letter to them. */
  letter(): Promise<string> {
    return until(`a letter to ${this.address}`, () => {
      const link = this.world.lab.links(this.address).findLast((one) => !this.read.has(one));
      if (link !== undefined) this.read.add(link);
      return link;
    });
  }

  /** Signs in on the page, from the sign-in page on, by a link out of a letter. Whoever has no account gets one. */
  async signIn(page: Page): Promise<void> {
    await page.goto(`${this.world.origin}/sign-in`);
    await page.getByRole('textbox', { name: /e-?mail/i }).fill(this.address);
    await page.getByRole('button', { name: /link/i }).click();
    await page.goto(await this.letter());
    // Opening a link does nothing yet; a person says so.
    await page.getByRole('button', { name: /^(sign in|anmelden)$/i }).click();
    await page.waitForURL((url) => !url.pathname.startsWith('/sign-in'));
  }

  /** Opens a place of theirs in a browser that is signed in already. */
  async open(page: Page, path: string): Promise<void> {
    const session = (await this.client()).session();
    await page.context().addCookies([{ ...session, url: this.world.origin, httpOnly: true, secure: true, sameSite: 'Lax' }]);
    await page.goto(`${this.world.origin}${path}`);
  }

  /** A browser of theirs without a screen, signed in. The Lab gives an address few links an hour, so all share this one's session. */
  async client(): Promise<Client> {
    if (this.lastKnown) return this.lastKnown;
    const client = new Client(this.world.lab.origin, this.world.lab.caFile, this.from);
    const { link } = await this.world.lab.invite(this.address);
    await client.json('POST', '/api/sign-in/mail/confirm', { token: link.split('#link=')[1] });
    this.lastKnown = client;
    return client;
  }

  /** Asks the Lab for them; see openapi.json. */
  async api<T>(method: string, path: string, body?: unknown): Promise<T> {
    return (await this.client()).json<T>(method, path, body);
  }

  async giveCredits(amount: number): Promise<void> {
    const { name } = await this.api<{ name: string }>('GET', '/api/account');
    await this.world.lab.admin('credits', 'grant', String(amount), '--user', name);
  }

  /** A workstation of theirs, paired and here. Several of one name cannot be had. */
  async newWorkstation(name = 'workstation'): Promise<Workstation> {
    const workstation = await this.world.newWorkstation(name);
    const { user_code } = await workstation.showCode();
    const { ticket } = await this.api<{ ticket: string }>('POST', '/api/pairings/review', { user_code });
    await this.api('POST', '/api/pairings/decide', { ticket, approve: true });
    await workstation.paired();
    workstation.turnOn();
    this.workstations.push(workstation);
    await until(`${name} is here with models`, async () => {
      const device = await this.device(name);
      return device?.presence === 'online' && device.models > 0 ? device : undefined;
    });
    return workstation;
  }

  async device(name: string): Promise<Device | undefined> {
    const { data } = await this.api<{ data: Device[] }>('GET', '/api/devices');
    return data.find((device) => device.name === name);
  }

  /** Their first project, which everybody has. */
  async project(): Promise<string> {
    const { data } = await this.api<{ data: { id: string }[] }>('GET', '/api/projects');
    const first = data[0];
    if (!first) throw new Error('somebody without a project');
    return first.id;
  }

  /** Begins a conversation without a page. */
  async newConversation(model: string, project?: string): Promise<Talk> {
    const order = { project: project ?? (await this.project()), settings: { model: { model } } };
    const { id } = await this.api<{ id: string }>('POST', '/api/conversations', order);
    return new Talk(this, id);
  }

  async writeFile(project: string, path: string, text: string): Promise<void> {
    const client = await this.client();
    const bytes = Buffer.from(text);
    await client.json('PUT', `/api/projects/${project}/files/content`, bytes, { 'x-1k4-path': encodeURIComponent(path) });
  }

  async leave(): Promise<void> {
    this.lastKnown?.close();
    await Promise.all(this.workstations.map((workstation) => workstation.end()));
  }
}

/** A conversation of somebody's, held without a page. */
export class Talk {
  private last: string | null = null;

  constructor(
    private readonly person: Person,
    readonly id: string,
  ) {}

  /** Says something; gives the run that answers. With `agent` an agent works on it. */
  async say(text: string, agent?: object): Promise<string> {
    const order = { conversation: this.id, parent: this.last, says: [{ type: 'text', text }], ...(agent && { agent }) };
    const { run } = await this.person.api<{ run: { id: string; message: string } }>('POST', '/api/runs', order);
    this.last = run.message;
    return run.id;
  }

  /** Says something and waits for the whole answer; gives its run. */
  async ask(text: string, agent?: object): Promise<string> {
    const run = await this.say(text, agent);
    const client = await this.person.client();
    // The stream ends when the run has, and its message is written.
    const told = await client.ask('GET', `/api/runs/${run}/events`);
    const { state } = await client.json<{ state: string }>('GET', `/api/runs/${run}`);
    if (state !== 'done') throw new Error(`a run is ${state}:\n${told.text.slice(-2000)}`);
    return run;
  }

  /** What was said last on the branch that is read. */
  async lastWords(): Promise<string> {
    const { data } = await this.person.api<{ data: { content: { parts: { type: string; text?: string }[] } }[] }>(
      'GET',
      `/api/conversations/${this.id}/messages`,
    );
    const parts = data.at(-1)?.content.parts ?? [];
    return parts.map((part) => (part.type === 'text' ? (part.text ?? '') : '')).join('');
  }
}
