import { address } from '../../lib/api';
import { nameOf } from './paths';

/** Where a file's content is; the Lab gives it as a download alone. */
export function contentAddress(project: string, file: string, version?: number): string {
  return address('/api/projects/{id}/files/{file}/content', { id: project, file }, { version });
}

/** Has the browser save a file, as a press on a link would. */
export function download(project: string, file: { id: string; path: string }): void {
  const link = document.createElement('a');
  link.href = contentAddress(project, file.id);
  link.download = nameOf(file.path);
  link.click();
}
