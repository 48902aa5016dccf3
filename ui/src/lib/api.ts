/**
 * The Lab's API, by its own description: addresses, parameters, bodies and answers are checked against `gen/api.d.ts`.
 *
 * What does not come to a good answer is one {@link ApiFailure}. A question that changes nothing is asked again while the Lab cannot be
 * reached; what changes something is never sent twice.
 */
import { connection } from './connection.svelte';
import type { components, paths } from './gen/api';
import { m } from './i18n.svelte';

export type Schemas = components['schemas'];

type Method = 'get' | 'post' | 'put' | 'patch' | 'delete';
type Operation<P extends keyof paths, M extends Method> = NonNullable<paths[P][M]>;
type PathsWith<M extends Method> = { [P in keyof paths]: paths[P][M] extends object ? P : never }[keyof paths];
type Needed<O, K extends string> = O extends { parameters: { [X in K]?: infer V } } ? (undefined extends V ? unknown : V) : unknown;
type OptionalParameters<O, K extends string> = O extends { parameters: { [X in K]?: infer V } } ? NonNullable<V> : never;
type Body<O> = O extends { requestBody?: { content: { 'application/json': infer B } } } ? B : never;
type Good<R> = { [S in keyof R]: S extends 200 | 201 | 202 ? (R[S] extends { content: { 'application/json': infer B } } ? B : undefined) : never }[keyof R];
type Answer<O> = O extends { responses: infer R } ? ([Good<R>] extends [never] ? undefined : Good<R>) : never;

type Options<O> = {
  signal?: AbortSignal;
} & (Needed<O, 'path'> extends infer V ? (unknown extends V ? unknown : { path: V }) : never) & {
    query?: OptionalParameters<O, 'query'>;
  } & (O extends { requestBody: { content: { 'application/json': infer B } } }
    ? { body: B }
    : [Body<O>] extends [never]
      ? unknown
      : { body?: Body<O> });

type Arguments<O> = object extends Options<O> ? [options?: Options<O>] : [options: Options<O>];

export class ApiFailure extends Error {
  override name = 'ApiFailure';

  constructor(
    /** The HTTP status; 0 where the Lab could not be reached. */
    readonly status: number,
    /** For programs; never changes its meaning. */
    readonly code: string,
    /** For people: what happened. */
    message: string,
    /** For people: what to do now; empty where the message says it. */
    readonly next: string,
    /** By which operators find it in their log. */
    readonly requestId?: string,
    /** When it is worth trying again, in seconds, where the Lab says so. */
    readonly retryAfterS?: number,
  ) {
    super(message);
  }
}

/** Whatever was thrown, as something that can be shown. */
export function asFailure(error: unknown): ApiFailure {
  if (error instanceof ApiFailure) return error;
  return new ApiFailure(0, 'app_failed', m.error_app(), m.error_app_next());
}

/** Whether somebody called it off; then there is nothing to say. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

let signedOut: () => void = () => {};
/** Calls `then` when the Lab says that nobody is signed in. */
export function onSignedOut(then: () => void): void {
  signedOut = then;
}

let proveAgain: () => Promise<boolean> = async () => false;
/** Calls `then` when the Lab wants a fresh sign-in first; what was asked is asked again where that comes to `true`. */
export function onProofWanted(then: () => Promise<boolean>): void {
  proveAgain = then;
}

/** `/api/files/{id}` with its blanks filled in. */
export function address(path: string, blanks: Record<string, string | number> = {}, query: Record<string, unknown> = {}): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(blanks[name])));
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== '');
  return pairs.length === 0 ? filled : `${filled}?${new URLSearchParams(pairs.map(([name, value]) => [name, String(value)]))}`;
}

/** A request as it stands, of which only the failures are read. For what is not JSON: files, streams. */
export async function send(url: string, request: RequestInit = {}): Promise<Response> {
  const safe = (request.method ?? 'GET') === 'GET';
  const response = await reach(url, { credentials: 'same-origin', redirect: 'error', ...request }, safe);
  if (response.ok) return response;
  const failure = await read(response);
  if (failure.status === 401) signedOut();
  // The Lab has done nothing of it yet.
  if (failure.code === 'step_up_required' && (await proveAgain())) return send(url, request);
  throw failure;
}

async function reach(url: string, request: RequestInit, safe: boolean): Promise<Response> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const response = await fetch(url, request);
      connection.reached();
      if (safe && attempt < 3 && (response.status === 502 || response.status === 504)) {
        await connection.pause(attempt, request.signal ?? undefined);
        continue;
      }
      return response;
    } catch (error) {
      if (isAbort(error) || request.signal?.aborted) throw error;
      connection.lost();
      if (!safe || attempt >= 5) throw new ApiFailure(0, 'unreachable', m.error_unreachable(), m.error_unreachable_next());
      await connection.pause(attempt, request.signal ?? undefined);
    }
  }
}

async function read(response: Response): Promise<ApiFailure> {
  const requestId = response.headers.get('x-1k4-request-id') ?? undefined;
  const detail = await response
    .json()
    .then((body: Partial<Schemas['Error']> | null) => body?.error)
    .catch(() => undefined);
  const retryAfter = Number(response.headers.get('retry-after')) || undefined;
  if (detail?.code) return new ApiFailure(response.status, detail.code, detail.message, '', requestId, retryAfter);
  return new ApiFailure(response.status, 'unexpected', m.error_unexpected({ status: response.status }), m.error_unexpected_next(), requestId);
}

async function ask(method: Method, path: string, options: { path?: Record<string, string>; query?: object; body?: unknown; signal?: AbortSignal } = {}): Promise<unknown> {
  const request: RequestInit = { method: method.toUpperCase(), signal: options.signal ?? null, headers: { accept: 'application/json' } };
  // The Lab takes a change only as JSON: a form on somebody else's page cannot send that.
  if (method !== 'get') request.headers = { accept: 'application/json', 'content-type': 'application/json' };
  if (options.body !== undefined) request.body = JSON.stringify(options.body);
  const response = await send(address(path, options.path, options.query as Record<string, unknown>), request);
  if (response.status === 204 || response.headers.get('content-length') === '0') return undefined;
  const text = await response.text();
  return text === '' ? undefined : JSON.parse(text);
}

function asker<M extends Method>(method: M) {
  return <P extends PathsWith<M>>(path: P, ...[options]: Arguments<Operation<P, M>>): Promise<Answer<Operation<P, M>>> =>
    ask(method, path, options as Parameters<typeof ask>[2]) as Promise<Answer<Operation<P, M>>>;
}

export const api = { get: asker('get'), post: asker('post'), put: asker('put'), patch: asker('patch'), delete: asker('delete') };
