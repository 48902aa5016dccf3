/** Names of what approvals and runs mention by id. Asked for once each. */
import { SvelteMap, SvelteSet } from 'svelte/reactivity';
import { api } from '../../lib/api';

class Names {
  #projects = new SvelteMap<string, string>();
  #conversations = new SvelteMap<string, string>();
  #asked = new SvelteSet<string>();

  project(id: string): string {
    if (!this.#projects.has(id)) this.#once('projects', async () => {
      const { data } = await api.get('/api/projects');
      for (const project of data) this.#projects.set(project.id, project.name);
    });
    return this.#projects.get(id) ?? '';
  }

  conversation(id: string): string {
    if (!this.#conversations.has(id)) this.#once(id, async () => {
      const { title } = await api.get('/api/conversations/{id}', { path: { id } });
      this.#conversations.set(id, title);
    });
    return this.#conversations.get(id) ?? '';
  }

  // Reading a name asks for it; that happens while a page is drawn, where nothing may change at once.
  #once(what: string, ask: () => Promise<void>): void {
    queueMicrotask(() => {
      if (this.#asked.has(what)) return;
      this.#asked.add(what);
      ask().catch(() => this.#asked.delete(what));
    });
  }
}

export const names = new Names();
