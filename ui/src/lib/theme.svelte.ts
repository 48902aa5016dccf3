/** Light, dark or high contrast, as the system says or as somebody chose; and how close things stand. */
import { keep, recall } from './preference';

export const themes = ['system', 'light', 'dark', 'contrast'] as const;
export type Theme = (typeof themes)[number];

export const densities = ['roomy', 'dense'] as const;
export type Density = (typeof densities)[number];

class Appearance {
  chosen = $state<Theme>('system');
  density = $state<Density>('roomy');
  #moreContrast: MediaQueryList | undefined;

  start(): void {
    const kept = recall<string>('theme', 'system');
    this.chosen = themes.find((theme) => theme === kept) ?? 'system';
    this.space(densities.find((density) => density === recall<string>('density', 'roomy')) ?? 'roomy');
    this.#moreContrast = matchMedia('(prefers-contrast: more)');
    this.#moreContrast.addEventListener('change', () => this.#apply());
    this.#apply();
  }

  choose(theme: Theme): void {
    this.chosen = theme;
    keep('theme', theme);
    this.#apply();
  }

  space(density: Density): void {
    this.density = density;
    keep('density', density);
    document.documentElement.toggleAttribute('data-dense', density === 'dense');
  }

  // Without the attribute the style sheet follows the system between light and dark by itself.
  #apply(): void {
    const shown = this.chosen === 'system' && this.#moreContrast?.matches ? 'contrast' : this.chosen;
    if (shown === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = shown;
  }
}

export const appearance = new Appearance();
