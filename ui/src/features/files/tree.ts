/** A flat list of paths as rows of a tree: folders first, then files, by name. */
import type { Schemas } from '../../lib/api';
import { nameOf } from './paths';

export type File = Schemas['File'];
export type FolderRow = { kind: 'folder'; path: string; name: string; depth: number; open: boolean; files: number };
export type FileRow = { kind: 'file'; file: File; name: string; depth: number };
export type Row = FolderRow | FileRow;

type Folder = { folders: Map<string, Folder>; files: File[] };

/** The rows that are to be seen, where these folders (`a/b/`) are open. */
export function rows(files: File[], open: ReadonlySet<string>): Row[] {
  const root: Folder = { folders: new Map(), files: [] };
  for (const file of files) {
    let folder = root;
    for (const name of file.path.split('/').slice(0, -1)) {
      const inner = folder.folders.get(name) ?? { folders: new Map(), files: [] };
      folder.folders.set(name, inner);
      folder = inner;
    }
    folder.files.push(file);
  }
  const list: Row[] = [];
  walk(root, '', 0, open, list);
  return list;
}

function walk(folder: Folder, at: string, depth: number, open: ReadonlySet<string>, list: Row[]): void {
  for (const [name, inner] of [...folder.folders].sort(([a], [b]) => byName(a, b))) {
    const path = `${at}${name}/`;
    const isOpen = open.has(path);
    list.push({ kind: 'folder', path, name, depth, open: isOpen, files: inside(inner) });
    if (isOpen) walk(inner, path, depth + 1, open, list);
  }
  for (const file of folder.files.toSorted((a, b) => byName(a.path, b.path))) list.push({ kind: 'file', file, name: nameOf(file.path), depth });
}

function inside(folder: Folder): number {
  return [...folder.folders.values()].reduce((sum, inner) => sum + inside(inner), folder.files.length);
}

export type Order = 'path' | 'changed' | 'size';

/** Every file with its whole path. */
export function flat(files: File[], order: Order): FileRow[] {
  const by: Record<Order, (a: File, b: File) => number> = {
    path: (a, b) => byName(a.path, b.path),
    changed: (a, b) => b.updated_at - a.updated_at,
    size: (a, b) => b.size - a.size,
  };
  return files.toSorted(by[order]).map((file) => ({ kind: 'file', file, name: file.path, depth: 0 }));
}

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: 'base' });
function byName(a: string, b: string): number {
  return collator.compare(a, b) || (a < b ? -1 : 1);
}
