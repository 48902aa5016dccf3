/** What a rule is about, in words. */
import type { Schemas } from '../../../lib/api';
import { m } from '../../../lib/i18n.svelte';

export function targetWords(targets: Schemas['Targets']): string {
  switch (targets.type) {
    case 'any':
      return m.agents_about_any();
    case 'exactly':
      return targets.target;
    case 'matching':
      return targets.pattern;
  }
}

/** The targets that were written in a form; `null` where something is missing. */
export function targetsOf(type: Schemas['Targets']['type'], text: string): Schemas['Targets'] | null {
  const written = text.trim();
  if (type === 'any') return { type };
  if (written === '') return null;
  return type === 'exactly' ? { type, target: written } : { type, pattern: written };
}
