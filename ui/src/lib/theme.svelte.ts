/** Light, dark or high contrast: as the system says, or as somebody chose. */
import { keep, recall } from './preference';

export const themes = ['system', 'light', 'dark', 'contrast'] as const;
export type Theme = (typeof themes)[number];

class Appearance {
  chosen = $state<Theme>('system');
  #moreContrast: MediaQueryList | undefined;

  start(): void {
    const kept = recall<string>('theme', 'system');
    this.chosen = themes.find((theme) => theme === kept) ?? 'system';
    this.#moreContrast = matchMedia('(prefers-contrast: more)');
    this.#moreContrast.addEventListener('change', () => this.#apply());
    this.#apply();
  }

  choose(theme: Theme): void {
    this.chosen = theme;
    keep('theme', theme);
    this.#apply();
  }

  // Without the attribute the style sheet follows the system between light and dark by itself.
  #apply(): void {
    const shown = this.chosen === 'system' && this.#moreContrast?.matches ? 'contrast' : this.chosen;
    if (shown === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = shown;
  }
}

export const appearance = new Appearance();
