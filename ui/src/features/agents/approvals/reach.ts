/** How far an answer can reach: what the person is offered, and what the Lab is told of it. */
import type { Schemas } from '../../../lib/api';
import { isServed } from '../tools';

export type Scope = 'once' | Schemas['RememberScope'];

export type About = { id: 'exactly' | 'folder' | 'any'; targets: Schemas['Targets']; what: string };

const ABOUT_FILES = /^files_/;
// Their target is a name of one thing that comes only once.
const ONCE_ONLY = new Set(['tasks_create']);

/** What an answer can be about, the narrowest first; every one covers what was asked. */
export function abouts(question: Schemas['Question']): About[] {
  if (question.type === 'plan') return [];
  const any: About = { id: 'any', targets: { type: 'any' }, what: '' };
  const { tool, target } = question;
  if (isServed(tool) || target === '' || ONCE_ONLY.has(tool)) return [any];
  const exactly: About = { id: 'exactly', targets: { type: 'exactly', target }, what: target };
  const folder = ABOUT_FILES.test(tool) ? /^(.+)\/[^/]+$/.exec(target)?.[1] : undefined;
  if (folder === undefined) return [exactly, any];
  return [exactly, { id: 'folder', targets: { type: 'matching', pattern: `${literal(folder)}/**` }, what: `${folder}/` }, any];
}

/** The answer as the Lab takes it. */
export function answer(decision: Schemas['Decision'], scope: Scope, about: About | undefined, words = ''): Schemas['ApprovalAnswer'] {
  const said = words.trim() === '' ? {} : { words: words.trim() };
  if (scope === 'once' || about === undefined) return { decision, ...said };
  return { decision, ...said, remember: { scope, targets: about.targets } };
}

// A name that a glob matches as it stands.
function literal(name: string): string {
  return name.replace(/[[\]*?{}\\!]/g, (sign) => `[${sign}]`);
}
