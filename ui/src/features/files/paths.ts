/** Paths of files, and the folders that they make: the Lab keeps paths alone. */

/** The last name of a path. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** The folder of a path, with its slash; empty at the top. */
export function folderOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/') + 1);
}

/** `a/b/c.md` as names, each with the path up to it. */
export function crumbs(path: string): { name: string; path: string }[] {
  return path.split('/').map((name, at, all) => ({ name, path: all.slice(0, at + 1).join('/') }));
}

// What the Lab takes; it has the last word.
const MOST_BYTES = 512;
const MOST_NAMES = 32;

/** Whether the Lab would refuse a path, as far as a page can say. */
export function refusable(path: string): boolean {
  const names = path.split('/');
  const bad = (name: string): boolean => name === '' || name === '.' || name === '..' || /[. ]$/.test(name) || /[\\:\p{Cc}]/u.test(name);
  return new TextEncoder().encode(path).length > MOST_BYTES || names.length > MOST_NAMES || names.some(bad);
}

/** A path as the header takes it: in percents what is no visible ASCII. */
export function encoded(path: string): string {
  return encodeURIComponent(path.toWellFormed()).replaceAll('%2F', '/');
}

/** A name that is not taken yet: `a.md`, `a-2.md`, `a-3.md`. */
export function freeName(path: string, taken: ReadonlySet<string>): string {
  if (!taken.has(path)) return path;
  const name = nameOf(path);
  const dot = name.lastIndexOf('.');
  const [stem, ending] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ''];
  for (let number = 2; ; number += 1) {
    const next = `${folderOf(path)}${stem}-${number}${ending}`;
    if (!taken.has(next)) return next;
  }
}
