/**
 * The language. Every visible word is a message of `messages/<locale>/<area>.json`, compiled into a function of `m`. The app is drawn anew
 * when the language changes, so messages need no subscription.
 */
import { getLocale, isLocale, locales, setLocale, type Locale } from './paraglide/runtime.js';

export { m } from './paraglide/messages.js';
export { locales, type Locale };

/** Each language, by its own name. */
export const languages: Record<Locale, string> = { en: 'English', de: 'Deutsch' };

class Language {
  current = $state<Locale>(getLocale());

  constructor() {
    this.#mark();
  }

  choose(locale: string): void {
    if (!isLocale(locale)) return;
    void setLocale(locale, { reload: false });
    this.current = locale;
    this.#mark();
  }

  #mark(): void {
    if (typeof document !== 'undefined') document.documentElement.lang = this.current;
  }
}

export const language = new Language();
