/** What a tool is called with, as somebody can read it. A model wrote it, so nothing is taken for granted. */

export type Field = { name: string; text: string; long: boolean };

export type Edit = { old: string; new: string; all: boolean };

const LONG = 60;

export function fields(args: unknown): Field[] {
  if (typeof args !== 'object' || args === null || Array.isArray(args)) {
    const text = JSON.stringify(args, null, 2) ?? '';
    return text === '' ? [] : [field('…', text)];
  }
  return Object.entries(args).map(([name, value]) => field(name, typeof value === 'string' ? value : JSON.stringify(value, null, 2)));
}

function field(name: string, text: string): Field {
  return { name, text, long: text.length > LONG || text.includes('\n') };
}

/** The changes of `files_patch`; none where they are not what they should be, so that they are shown as they stand. */
export function edits(args: unknown): Edit[] {
  const list = typeof args === 'object' && args !== null && 'edits' in args ? args.edits : undefined;
  if (!Array.isArray(list)) return [];
  const read = list.map((edit: unknown): Edit | null => {
    if (typeof edit !== 'object' || edit === null || !('old' in edit) || !('new' in edit)) return null;
    if (typeof edit.old !== 'string' || typeof edit.new !== 'string') return null;
    // Where both are parts of a line, that they end without a break says nothing.
    const end = edit.old.endsWith('\n') || edit.new.endsWith('\n') ? '' : '\n';
    return { old: edit.old + end, new: edit.new + end, all: 'all' in edit && edit.all === true };
  });
  return read.every((edit) => edit !== null) ? read : [];
}
