/** Where the browser is: the path as state, links without a reload, and a question before somebody leaves unsaved words. */

export type Matched = Record<string, string>;

/** The blanks of `/projects/{id}/files` in a path, or `null` where it is another. */
export function match(pattern: string, path: string): Matched | null {
  const wanted = pattern.split('/').filter(Boolean);
  const given = path.split('/').filter(Boolean);
  if (wanted.length !== given.length) return null;
  const blanks: Matched = {};
  for (const [at, piece] of wanted.entries()) {
    const text = given[at] ?? '';
    if (piece.startsWith('{')) {
      try {
        blanks[piece.slice(1, -1)] = decodeURIComponent(text);
      } catch {
        return null;
      }
    } else if (piece !== text) return null;
  }
  return blanks;
}

/** Whether the page may be left for `to`; `null` where the browser itself asks, who then says it in its own words. */
export type Guard = (to: string | null) => boolean;

class Router {
  path = $state('/');
  query = $state<URLSearchParams>(new URLSearchParams());
  #guards = new Set<Guard>();
  #shown = '/';

  /** Begins to listen. Links are plain `<a href>`; those within the app are followed here. */
  start(): void {
    this.#read();
    window.addEventListener('popstate', () => this.#moved());
    document.addEventListener('click', (event) => this.#follow(event));
  }

  go(to: string, how: { replace?: boolean } = {}): void {
    const url = new URL(to, location.origin);
    if (url.origin !== location.origin) return;
    const target = url.pathname + url.search + url.hash;
    if (!this.#mayLeave(target)) return;
    if (how.replace) history.replaceState(null, '', target);
    else if (target !== location.pathname + location.search + location.hash) history.pushState(null, '', target);
    this.#read();
  }

  /** Asks `mayLeave` before the page is left, by a link, by Back or for good. Returns what ends that. */
  guard(mayLeave: Guard): () => void {
    const unload = (event: BeforeUnloadEvent): void => {
      if (!mayLeave(null)) event.preventDefault();
    };
    this.#guards.add(mayLeave);
    window.addEventListener('beforeunload', unload);
    return () => {
      this.#guards.delete(mayLeave);
      window.removeEventListener('beforeunload', unload);
    };
  }

  #mayLeave(to: string): boolean {
    return [...this.#guards].every((mayLeave) => mayLeave(to));
  }

  #moved(): void {
    const to = location.pathname + location.search + location.hash;
    if (this.#mayLeave(to)) this.#read();
    // The browser has moved already: back to what is shown.
    else history.pushState(null, '', this.#shown);
  }

  #read(): void {
    this.#shown = location.pathname + location.search + location.hash;
    this.path = location.pathname;
    this.query = new URLSearchParams(location.search);
  }

  #follow(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest('a') : null;
    if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin) return;
    if (/^\/(api|v1|v1beta)\//.test(link.pathname)) return;
    if (link.hash && link.pathname === location.pathname && link.search === location.search) return;
    event.preventDefault();
    this.go(link.href);
  }
}

export const router = new Router();
