/** One conversation as it is open here: its tree, the branch that is read, and the answers that are being made. */
import { SvelteMap } from 'svelte/reactivity';
import { api, asFailure, isAbort, type ApiFailure, type Schemas } from '../../lib/api';
import { follow } from '../../lib/events';
import { m } from '../../lib/i18n.svelte';
import { Live, type Outcome } from './live.svelte';
import { Tree, type Message, type Part } from './tree';

type Said = Schemas['SaidPart'][];

const OVER = new Set<Schemas['RunState']>(['done', 'stopped', 'failed', 'interrupted', 'exhausted']);

export class Chat {
  id = $state<string | null>(null);
  conversation = $state.raw<Schemas['Conversation'] | null>(null);
  tree = $state.raw(new Tree([]));
  leaf = $state<string | null>(null);
  loading = $state(false);
  failure = $state.raw<ApiFailure | null>(null);
  /** By the message that each makes. */
  live = new SvelteMap<string, Live>();
  /** How answers ended that did not end well. */
  outcomes = new SvelteMap<string, Outcome>();

  path = $derived(this.tree.path(this.leaf));
  /** The answer that is made now at the end of this branch. */
  current = $derived.by(() => this.path.map((message) => this.live.get(message.id)).find((live) => live && live.outcome === null));

  #closed = new AbortController();

  constructor(id: string | null) {
    this.id = id;
    if (id) void this.load();
  }

  close(): void {
    this.#closed.abort();
  }

  async load(): Promise<void> {
    const id = this.id;
    if (!id) return;
    this.loading = true;
    this.failure = null;
    try {
      const path = { id };
      const [conversation, messages, runs] = await Promise.all([
        api.get('/api/conversations/{id}', { path, signal: this.#closed.signal }),
        this.#messages(id),
        api.get('/api/conversations/{id}/runs', { path, query: { limit: 200 }, signal: this.#closed.signal }),
      ]);
      this.conversation = conversation;
      this.tree = new Tree(messages);
      this.leaf = conversation.leaf && this.tree.get(conversation.leaf) ? this.tree.end(conversation.leaf) : this.tree.end(null);
      for (const run of runs.data) this.#meet(run);
    } catch (error) {
      if (!isAbort(error)) this.failure = asFailure(error);
    } finally {
      this.loading = false;
    }
  }

  /** Says something at the end of the branch, or below another message; the conversation begins with the first words. */
  async say(said: Said, model: string, project: string, parent: string | null = this.leaf): Promise<void> {
    const conversation = this.id ?? (await this.#begin(project, model));
    const started = await api.post('/api/runs', { body: { conversation, parent, says: said, model: { model } } });
    this.#started(started, parent, said);
  }

  /** Has a message of one's own answered once more. */
  async again(question: string, model: string): Promise<void> {
    if (!this.id) return;
    this.#started(await api.post('/api/runs', { body: { conversation: this.id, parent: question, model: { model } } }), question);
  }

  async stop(live: Live): Promise<void> {
    live.stopping = true;
    try {
      await api.post('/api/runs/{id}/stop', { path: { id: live.run } });
    } catch (error) {
      live.stopping = false;
      throw error;
    }
  }

  /** Reads another branch from here on. */
  async turn(to: string): Promise<void> {
    this.leaf = this.tree.end(to);
    if (this.id && this.leaf) await api.patch('/api/conversations/{id}', { path: { id: this.id }, body: { leaf: this.leaf } });
  }

  async fork(message: string): Promise<string> {
    const { id } = await api.post('/api/conversations/{id}/fork', { path: { id: this.id ?? '' }, body: { message } });
    return id;
  }

  /** Milliseconds of the last word; what is at the end changes with it. */
  get end(): Message | undefined {
    return this.path.at(-1);
  }

  async #begin(project: string, model: string): Promise<string> {
    this.conversation = await api.post('/api/conversations', { body: { project, settings: { model: { model }, instructions: null } } });
    this.id = this.conversation.id;
    return this.id;
  }

  async #messages(id: string): Promise<Message[]> {
    const all: Message[] = [];
    for (let cursor: string | undefined; ; ) {
      const page = await api.get('/api/conversations/{id}/messages', { path: { id }, query: { limit: 1000, cursor }, signal: this.#closed.signal });
      all.push(...page.data);
      if (!page.next) return all;
      cursor = page.next;
    }
  }

  #started({ run, asked }: Schemas['StartedRun'], parent: string | null, said: Said = []): void {
    const now = Date.now();
    const fresh: Message[] = [];
    if (asked) {
      fresh.push({ id: asked, parent, role: 'user', content: { parts: this.#said(said) }, version: 1, created_at: now });
    }
    fresh.push({ id: run.message, parent: asked ?? parent, role: 'assistant', content: { parts: [] }, run: run.id, version: 1, created_at: now + 1 });
    this.tree = this.tree.with(...fresh);
    this.leaf = run.message;
    this.#meet(run);
  }

  // What an attached file is, until the conversation is read from the Lab again.
  #attached = new Map<string, Schemas['FileVersion']>();
  named(version: Schemas['FileVersion']): void {
    this.#attached.set(version.file, version);
  }

  #said(said: Said): Part[] {
    return said.map((part) => {
      if (part.type === 'text') return part;
      const known = this.#attached.get(part.file);
      return { type: 'file', file: part.file, version: part.version ?? known?.version ?? 1, name: known?.path ?? '', media_type: known?.media_type ?? '' };
    });
  }

  #meet(run: Schemas['Run']): void {
    if (!OVER.has(run.state)) this.#follow(run, 0);
    // How it ended stands in its last event.
    else if (run.state !== 'done' && this.tree.get(run.message)) this.#follow(run, run.last_seq - 1);
  }

  #follow(run: Schemas['Run'], after: number): void {
    if (this.live.has(run.message)) return;
    const live = new Live(run.id);
    const watched = after === 0;
    if (watched) this.live.set(run.message, live);
    const over = (outcome: Outcome): void => {
      if (outcome.outcome !== 'done') this.outcomes.set(run.message, outcome);
      if (watched) this.#settle(run.message, live);
    };
    const end = follow(run.id, after, {
      onevents: (events) => {
        live.apply(events);
        if (live.outcome) over(live.outcome);
      },
      onstate: (state) => (live.link = state),
      onfailure: ({ code }) => over({ type: 'ended', outcome: 'failed', code, message: m.chat_lost() }),
    });
    this.#closed.signal.addEventListener('abort', end, { once: true });
  }

  #settle(id: string, live: Live): void {
    const message = this.tree.get(id);
    if (message) this.tree = this.tree.with({ ...message, content: { parts: live.parts, usage: live.usage } });
    this.live.delete(id);
  }
}
