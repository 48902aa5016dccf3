/** The models that can be asked, and the state of each. What is known is shown at once and asked for again while somebody looks. */
import { api, asFailure, type ApiFailure, type Schemas } from './api';
import { m } from './i18n.svelte';
import { keep, recall } from './preference';
import { relative } from './format';
import { onNews } from './poll';

export type Model = Schemas['ModelView'];
export type Standing = { tone: 'good' | 'busy' | 'warn' | 'bad' | 'off'; word: string };
export type Place = { id: string; name: string; models: Model[] };

class Models {
  list = $state.raw<Model[]>([]);
  loaded = $state(false);
  failure = $state.raw<ApiFailure | null>(null);
  #watchers = 0;
  #end: (() => void) | null = null;
  #text = '';

  /** Keeps the list fresh for as long as somebody looks; returns what ends that, as an `$effect` wants it. */
  watch(): () => void {
    this.#watchers += 1;
    this.#end ??= onNews(['devices'], () => this.refresh());
    return () => {
      this.#watchers -= 1;
      if (this.#watchers > 0) return;
      this.#end?.();
      this.#end = null;
    };
  }

  async refresh(): Promise<void> {
    try {
      const { data } = await api.get('/api/models');
      const text = JSON.stringify(data);
      if (text !== this.#text) this.list = data.filter((model) => model.capabilities.length === 0 || model.capabilities.includes('completion'));
      this.#text = text;
      this.loaded = true;
      this.failure = null;
    } catch (error) {
      this.failure = asFailure(error);
    }
  }

  find(name: string): Model | undefined {
    return this.list.find((model) => model.name === name || model.name === `${name}:latest`);
  }

  /** Who is asked where nobody has chosen: the last choice while it is there, else a model of one's own that is ready, else any. */
  get preferred(): Model | undefined {
    const last = this.find(recall<string>('models', ''));
    if (last) return last;
    const ready = (model: Model): boolean => model.host !== 'cloud' && (model.availability === 'online' || model.availability === 'busy');
    return this.list.find((model) => model.host === 'device' && model.loaded && ready(model)) ?? this.list.find(ready) ?? this.list.find((model) => model.host === 'cloud') ?? this.list[0];
  }

  chose(name: string): void {
    keep('models', name);
  }
}

export const models = new Models();

/** A model's own name, without where it is: `local@den/llama3.2:latest` is `llama3.2`. */
export function shortName(name: string): string {
  return name.replace(/^local(@[^/]*)?\//, '').replace(/:latest$/, '');
}

/** Models by where they run: any workstation, each workstation, each provider. */
export function places(list: Model[], anyName: string): Place[] {
  const found = new Map<string, Place>();
  for (const model of list) {
    const [id, name] = model.host === 'cloud' ? [`cloud:${model.provider}`, model.provider] : model.host === 'device' ? [`device:${model.device}`, model.device_name] : ['any', anyName];
    const place = found.get(id) ?? { id, name, models: [] };
    place.models.push(model);
    found.set(id, place);
  }
  return [...found.values()];
}

/** Whether it would answer now, said honestly. */
export function standing(model: Model, now = Date.now()): Standing {
  if (model.host === 'cloud') return { tone: 'good', word: m.model_online() };
  switch (model.availability) {
    case 'online':
      return { tone: 'good', word: model.host === 'device' && model.loaded ? m.model_loaded() : m.model_online() };
    case 'busy':
      return { tone: 'busy', word: model.host === 'device' && model.queued > 0 ? m.model_queue({ n: model.queued }) : m.model_busy() };
    case 'away':
      return { tone: 'off', word: m.model_away() };
    case 'paused':
      return { tone: 'warn', word: m.model_paused() };
    case 'ollama_down':
      return { tone: 'bad', word: m.model_ollama_down() };
    default:
      return { tone: 'off', word: model.host === 'device' && model.last_seen ? m.model_last_seen({ when: relative(model.last_seen, now) }) : m.model_offline() };
  }
}
