/** Models that an agent can work with, as a list to choose from. */
import type { Schemas } from '../../lib/api';
import { m } from '../../lib/i18n.svelte';

export type ModelOption = { value: string; label: string; group: string; ready: boolean };

/** Those that can use tools, or of which nobody says that they cannot; models that only embed or have no tools are of no use. */
export function modelOptions(models: Schemas['ModelView'][]): ModelOption[] {
  return models
    .filter(({ capabilities, unsure }) => capabilities.includes('tools') || unsure.includes('tools'))
    .map((model) => {
      const ready = model.host === 'cloud' || model.availability === 'online' || model.availability === 'busy';
      const short = model.name.replace(/^local(@[^/]+)?\//, '').replace(/:latest$/, '');
      const group = model.host === 'cloud' ? model.provider : model.host === 'device' ? model.device_name : m.agents_any_device();
      return { value: model.name, label: model.host === 'cloud' || model.availability === 'online' ? short : `${short} (${stateWord(model.availability)})`, group, ready };
    });
}

function stateWord(availability: Schemas['Availability']): string {
  return {
    online: m.agents_model_online,
    busy: m.agents_model_busy,
    away: m.agents_model_away,
    paused: m.agents_model_paused,
    ollama_down: m.agents_model_down,
    offline: m.agents_model_offline,
  }[availability]();
}

/** What is chosen at first: what the project says, else the first that is ready. */
export function firstChoice(options: ModelOption[], wanted?: string | null): string {
  return (options.find(({ value }) => value === wanted) ?? options.find(({ ready }) => ready) ?? options[0])?.value ?? '';
}
