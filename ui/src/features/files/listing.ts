/** A project's files, as many as a page can carry. */
import { api } from '../../lib/api';
import type { File } from './tree';

// Beyond that a list is no help to anybody; the search looks at all of them.
const MOST = 5_000;

export async function listing(project: string, query: { deleted?: boolean } = {}, signal?: AbortSignal): Promise<{ files: File[]; whole: boolean }> {
  const files: File[] = [];
  let cursor: string | undefined;
  do {
    const page = await api.get('/api/projects/{id}/files', { path: { id: project }, query: { ...query, limit: 1_000, cursor }, signal });
    files.push(...page.data);
    cursor = page.next ?? undefined;
  } while (cursor && files.length < MOST);
  return { files, whole: cursor === undefined };
}
