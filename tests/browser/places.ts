// Every route of the app, and places there: addresses with ids of the scenes. A route without a place fails the tests that visit all.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Scenes } from './scenes.ts';

const ROUTES = join(import.meta.dirname, '../../ui/src/lab/routes.ts');

/** The paths in `routes.ts`, read as text: what stands beside them needs a browser. */
export function routes(): string[] {
  return [...readFileSync(ROUTES, 'utf8').matchAll(/path:\s*'([^']+)'/g)].flatMap((found) => found[1] ?? []);
}

/** Routes that nobody who is signed in sees. */
export const FOR_STRANGERS = ['/sign-in'];

const PLACES: Record<string, (scenes: Scenes) => string[]> = {
  '/chat/{id}': ({ conversation, worked, asking }) => [conversation, worked, asking].map((id) => `/chat/${id}`),
  '/account/{tab}': () => ['/account/preferences', '/account/data'],
  '/devices/{id}': ({ device }) => [`/devices/${device}`],
  '/projects/{id}': ({ project }) => [`/projects/${project}`],
  '/projects/{id}/{tab}': ({ project }) => ['files', 'board', 'log', 'settings'].map((tab) => `/projects/${project}/${tab}`),
  '/projects/{id}/files/{file}': ({ project, file }) => [`/projects/${project}/files/${file}`],
  '/usage/{tab}': () => ['requests', 'credits', 'prices', 'providers'].map((tab) => `/usage/${tab}`),
  '/runs/{id}': ({ agentRun, workedRun }) => [`/runs/${agentRun}`, `/runs/${workedRun}`],
};

/** Where to look at a route. */
export function placesOf(route: string, scenes: Scenes): string[] {
  if (!route.includes('{')) return [route];
  const places = PLACES[route];
  if (!places) throw new Error(`places.ts knows no place of the route ${route}`);
  return places(scenes);
}
