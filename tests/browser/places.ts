// Every route of the app, and a place there: an address with ids of the scenes. A route without a place fails the tests that visit all.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Scenes } from './scenes.ts';

const ROUTES = join(import.meta.dirname, '../../ui/src/lab/routes.ts');

/** The paths in `routes.ts`, read as text: what stands beside them needs a browser. */
export function routes(): string[] {
  return [...readFileSync(ROUTES, 'utf8').matchAll(/path:\s*'([^']+)'/g)].flatMap((found) => found[1] ?? []);
}

/** Routes that are for people who are not signed in; what they show then is what is looked at. */
export const FOR_STRANGERS = ['/sign-in'];

const IDS: Record<string, (scenes: Scenes) => string> = {
  '/c/{id}': (scenes) => scenes.conversation,
  '/chat/{id}': (scenes) => scenes.conversation,
};

/** Where to look at a route. */
export function placeOf(route: string, scenes: Scenes): string {
  const known = IDS[route];
  const id = (name: string) => {
    const value = known?.(scenes) ?? scenes[name as keyof Scenes];
    if (value === undefined) throw new Error(`places.ts knows no ${name} for the route ${route}`);
    return value;
  };
  return route.replaceAll(/\{(\w+)\}/g, (_, name: string) => id(name));
}
