import { api } from '../../lib/api';
import { m } from '../../lib/i18n.svelte';

/** Fills in what the ids of a log stand for. Names are a help: without them ids are shown, so what cannot be had is left out. */
export async function learnNames(project: string, names: Map<string, string>, signal: AbortSignal): Promise<void> {
  const path = { id: project };
  await Promise.allSettled([
    api.get('/api/projects/{id}/keys', { path, signal }).then(({ data }) => data.forEach((key) => names.set(key.kid, key.name))),
    api.get('/api/devices', { signal }).then(({ data }) => data.forEach((device) => names.set(device.id, device.name))),
    api.get('/api/projects/{id}/tasks', { path, signal }).then(({ data }) => data.forEach((task) => names.set(task.id, task.title))),
    api.get('/api/conversations', { query: { project, limit: 1_000 }, signal }).then(({ data }) => data.forEach((one) => names.set(one.id, one.title || m.log_talk_untitled()))),
  ]);
}
