import type { Schemas } from '../../lib/api';
import { m } from '../../lib/i18n.svelte';

/** Who wrote a version, in words. */
export function who(actor: Schemas['Actor']): string {
  if (actor.type === 'person') return m.files_who_person();
  return actor.type === 'agent' ? m.files_who_agent({ model: actor.model }) : m.files_who_program({ key: actor.key });
}
