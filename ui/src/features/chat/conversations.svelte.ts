/** The list of conversations: pinned, in folders, by day; and what a search finds in them. */
import { api, asFailure, isAbort, type ApiFailure, type Schemas } from '../../lib/api';
import { m } from '../../lib/i18n.svelte';

export type Conversation = Schemas['Conversation'];
export type Folder = Schemas['Folder'];
export type Found = Schemas['Find'] & { conversation: string };
export type Section = { id: string; title: string; folder?: Folder; list: Conversation[] };

const DAY = 86_400_000;

class Conversations {
  list = $state.raw<Conversation[]>([]);
  folders = $state.raw<Folder[]>([]);
  projects = $state.raw<Schemas['Project'][]>([]);
  archived = $state(false);
  loaded = $state(false);
  failure = $state.raw<ApiFailure | null>(null);
  next = $state<string | null>(null);
  sections = $derived(sections(this.list, this.folders, Date.now()));

  async load(): Promise<void> {
    try {
      const [page, folders, projects] = await Promise.all([
        api.get('/api/conversations', { query: { archived: this.archived, limit: 100 } }),
        api.get('/api/folders'),
        api.get('/api/projects'),
      ]);
      this.list = page.data;
      this.next = page.next ?? null;
      this.folders = folders.data;
      this.projects = projects.data;
      this.loaded = true;
      this.failure = null;
    } catch (error) {
      this.failure = asFailure(error);
    }
  }

  async more(): Promise<void> {
    const page = await api.get('/api/conversations', { query: { archived: this.archived, limit: 100, cursor: this.next ?? undefined } });
    this.list = [...this.list, ...page.data.filter((one) => !this.list.some((known) => known.id === one.id))];
    this.next = page.next ?? null;
  }

  /** Shows a conversation as it is now, on top: it was just used. */
  async used(id: string): Promise<void> {
    try {
      const now = await api.get('/api/conversations/{id}', { path: { id } });
      this.list = [now, ...this.list.filter((one) => one.id !== id)];
    } catch {
      // The list is a minute old then; the conversation itself says what went wrong.
    }
  }

  async change(id: string, body: Schemas['ConversationChange']): Promise<void> {
    const now = await api.patch('/api/conversations/{id}', { path: { id }, body });
    const stays = body.archived === undefined || body.archived === this.archived;
    this.list = stays ? this.list.map((one) => (one.id === id ? now : one)) : this.list.filter((one) => one.id !== id);
  }

  async delete(id: string): Promise<void> {
    await api.delete('/api/conversations/{id}', { path: { id } });
    this.list = this.list.filter((one) => one.id !== id);
  }

  async newFolder(name: string): Promise<Folder> {
    const folder = await api.post('/api/folders', { body: { name } });
    this.folders = [...this.folders, folder];
    return folder;
  }

  async renameFolder(id: string, name: string): Promise<void> {
    const now = await api.patch('/api/folders/{id}', { path: { id }, body: { name } });
    this.folders = this.folders.map((one) => (one.id === id ? now : one));
  }

  async deleteFolder(id: string): Promise<void> {
    await api.delete('/api/folders/{id}', { path: { id } });
    await this.load();
  }

  /** Which project a new conversation belongs to where nobody says: the oldest, which every account has. */
  async home(): Promise<string> {
    const known = this.projects[0] ?? (await api.get('/api/projects')).data[0];
    if (known) return known.id;
    return (await api.post('/api/projects', { body: { name: m.chat_first_project() } })).id;
  }
}

export const conversations = new Conversations();

export function sections(list: Conversation[], folders: Folder[], now: number): Section[] {
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  const loose = list.filter((one) => !one.pinned && !folders.some((folder) => folder.id === one.folder));
  const between = (from: number, to: number): Conversation[] => loose.filter((one) => one.updated_at >= from && one.updated_at < to);
  const all: Section[] = [
    { id: 'pinned', title: m.chat_pinned(), list: list.filter((one) => one.pinned) },
    ...folders.map((folder) => ({ id: folder.id, title: folder.name, folder, list: list.filter((one) => one.folder === folder.id && !one.pinned) })),
    { id: 'today', title: m.chat_today(), list: between(midnight, Infinity) },
    { id: 'yesterday', title: m.chat_yesterday(), list: between(midnight - DAY, midnight) },
    { id: 'week', title: m.chat_week(), list: between(midnight - 7 * DAY, midnight - DAY) },
    { id: 'older', title: m.chat_older(), list: between(-Infinity, midnight - 7 * DAY) },
  ];
  return all.filter((section) => section.folder || section.list.length > 0);
}

/** What has these words, of conversations; a newer search ends the one before. */
export class Finder {
  found = $state.raw<Found[] | null>(null);
  busy = $state(false);
  failure = $state.raw<ApiFailure | null>(null);
  #last = new AbortController();

  async look(words: string): Promise<void> {
    this.#last.abort();
    this.failure = null;
    if (words.trim() === '') {
      this.found = null;
      this.busy = false;
      return;
    }
    const search = (this.#last = new AbortController());
    this.busy = true;
    try {
      const page = await api.post('/api/search', { body: { q: words.trim(), in: 'conversations' }, signal: search.signal });
      this.found = page.data.filter((one): one is Found => 'conversation' in one);
      this.busy = false;
    } catch (error) {
      if (isAbort(error)) return;
      this.failure = asFailure(error);
      this.busy = false;
    }
  }
}
