/** Which requests are meant on the usage pages, and what the things are called that they can be narrowed to. */
import { api, type Schemas } from '../../lib/api';
import { m } from '../../lib/i18n.svelte';
import { firstDay, NO_KEY, periods } from './sums';

export type Names = { projects: Schemas['Project'][]; keys: Schemas['Key'][]; models: string[]; devices: Schemas['Device'][] };

export async function names(): Promise<Names> {
  const [{ data: projects }, { data: devices }, models] = await Promise.all([
    api.get('/api/projects'),
    api.get('/api/devices'),
    api.get('/api/usage', { query: { by: 'model' } }),
  ]);
  const lists = await Promise.all(projects.map(({ id }) => api.get('/api/projects/{id}/keys', { path: { id } })));
  return { projects, devices, keys: lists.flatMap(({ data }) => data), models: models.data.map((sum) => sum.bucket).filter((model) => model !== '-') };
}

/** How a bucket of sums is called by its owner. */
export function named(bucket: string, { projects, keys }: Names): string {
  if (bucket === NO_KEY) return m.usage_no_key();
  if (bucket === '-') return m.usage_no_model();
  const key = keys.find(({ kid }) => kid === bucket);
  return key?.name ?? projects.find(({ id }) => id === bucket)?.name ?? bucket;
}

export class Filter {
  days = $state('30');
  model = $state('');
  key = $state('');
  project = $state('');

  constructor(query: URLSearchParams) {
    this.key = query.get('key') ?? '';
    this.project = query.get('project') ?? '';
  }

  get first(): string {
    return firstDay(Number(this.days) || 30);
  }

  /** As the Lab's addresses take it. */
  get query(): { from: string; model?: string; key?: string; project?: string } {
    return {
      from: this.first,
      ...(this.model && { model: this.model }),
      ...(this.key && { key: this.key }),
      ...(this.project && { project: this.project }),
    };
  }

  periods = periods.map((days) => ({ value: String(days), label: m.usage_days({ days }) }));
}
