/** One file on its way to the Lab. Sent by XMLHttpRequest, because `fetch` does not tell how far it is. */
import { ApiFailure, address, type Schemas } from '../../lib/api';
import { connection } from '../../lib/connection.svelte';
import { m } from '../../lib/i18n.svelte';
import { session } from '../../lib/session.svelte';
import { encoded } from './paths';

export const MOST_BYTES = 50 * 1024 * 1024;

type Order = {
  project: string;
  path: string;
  body: Blob;
  /** The version that was seen, 0 for none; left out to write over whatever is there. */
  seen?: number;
  signal: AbortSignal;
  onsent: (bytes: number) => void;
};

export function upload({ project, path, body, seen, signal, onsent }: Order): Promise<Schemas['FileVersion']> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('PUT', address('/api/projects/{id}/files/content', { id: project }, { seen }));
    request.setRequestHeader('x-1k4-path', encoded(path));
    request.setRequestHeader('content-type', 'application/octet-stream');
    request.setRequestHeader('accept', 'application/json');
    request.responseType = 'json';
    request.upload.onprogress = ({ loaded }) => onsent(loaded);
    request.onload = () => {
      connection.reached();
      const answer: unknown = request.response;
      if (request.status === 200) resolve(answer as Schemas['FileVersion']);
      else {
        if (request.status === 401) void session.look();
        reject(refusal(request.status, answer));
      }
    };
    request.onerror = () => {
      connection.lost();
      reject(new ApiFailure(0, 'unreachable', m.error_unreachable(), m.error_unreachable_next()));
    };
    request.onabort = () => reject(new DOMException('', 'AbortError'));
    signal.addEventListener('abort', () => request.abort(), { once: true });
    request.send(body);
  });
}

function refusal(status: number, answer: unknown): ApiFailure {
  const detail = (answer as Partial<Schemas['Error']> | null)?.error;
  if (detail) return new ApiFailure(status, detail.code, detail.message, '');
  return new ApiFailure(status, 'unexpected', m.error_unexpected({ status }), m.error_unexpected_next());
}
