/** What a person prefers here, kept in this browser. Only choices of how things look and work; never a word that somebody wrote. */
export type PreferenceName = 'theme' | 'density' | 'shortcuts' | 'widths' | 'sidebar' | 'models' | 'consent';

export function recall<T>(name: PreferenceName, otherwise: T): T {
  try {
    const kept = localStorage.getItem(`1k4.${name}`);
    return kept === null ? otherwise : (JSON.parse(kept) as T);
  } catch {
    return otherwise;
  }
}

export function keep(name: PreferenceName, value: unknown): void {
  try {
    localStorage.setItem(`1k4.${name}`, JSON.stringify(value));
  } catch {
    // A browser that keeps nothing works all the same, until it is closed.
  }
}
