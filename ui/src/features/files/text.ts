/** A file's bytes as text that can be edited, and back without changing what nobody touched: line breaks and a byte order mark stay. */

export type Text = { text: string; breaks: '\n' | '\r\n'; mark: boolean };

/** Bytes up to which a file is edited here; a longer one is shown in part. */
export const MOST_EDITED = 1024 * 1024;

const MARK = '\u{feff}';

/** The text of some bytes; `null` where they are none. */
export function decode(bytes: ArrayBuffer): Text | null {
  try {
    const whole = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    const mark = whole.startsWith(MARK);
    const text = mark ? whole.slice(1) : whole;
    const windows = text.split('\r\n').length - 1;
    const breaks = windows > 0 && windows * 2 >= text.split('\n').length - 1 ? '\r\n' : '\n';
    return { text: text.replaceAll('\r\n', '\n'), breaks, mark };
  } catch {
    return null;
  }
}

export function encode({ text, breaks, mark }: Text): Uint8Array<ArrayBuffer> {
  const lines = text.replaceAll('\r\n', '\n');
  return new TextEncoder().encode((mark ? MARK : '') + (breaks === '\n' ? lines : lines.replaceAll('\n', '\r\n')));
}

/** How a file can be shown. */
export function shownAs(file: { media_type: string; size: number }): 'text' | 'picture' | 'pdf' | 'other' {
  const type = file.media_type.split(';')[0] ?? '';
  if (type.startsWith('text/') || type === 'application/json') return 'text';
  if (/^image\/(png|jpeg|gif|webp|avif|bmp)$/.test(type)) return 'picture';
  return type === 'application/pdf' ? 'pdf' : 'other';
}

const LANGUAGES: Record<string, string> = {
  bash: 'bash', sh: 'bash', zsh: 'bash', c: 'cpp', cc: 'cpp', cpp: 'cpp', h: 'cpp', hpp: 'cpp', css: 'css', go: 'go', java: 'java', js: 'javascript',
  mjs: 'javascript', jsx: 'javascript', json: 'json', py: 'python', rs: 'rust', sql: 'sql', ts: 'typescript', tsx: 'typescript', html: 'xml', svg: 'xml',
  svelte: 'xml', vue: 'xml', xml: 'xml',
};

/** Which language a file's name says it is in; empty for none that is coloured. */
export function languageOf(path: string): string {
  return LANGUAGES[/\.(\w+)$/.exec(path)?.[1]?.toLowerCase() ?? ''] ?? '';
}

/** What Tab does to a text: two spaces where the cursor is, or every line of a selection moved by as much. Shift takes them away. */
export function indent(text: string, from: number, to: number, back: boolean): { text: string; from: number; to: number } {
  if (from === to && !back) return { text: `${text.slice(0, from)}  ${text.slice(to)}`, from: from + 2, to: to + 2 };
  const start = text.lastIndexOf('\n', from - 1) + 1;
  const lines = text.slice(start, to).split('\n');
  const moved = lines.map((line) => (back ? line.replace(/^( {1,2}|\t)/, '') : line === '' ? line : `  ${line}`));
  const body = moved.join('\n');
  const first = (moved[0]?.length ?? 0) - (lines[0]?.length ?? 0);
  return { text: text.slice(0, start) + body + text.slice(to), from: Math.max(start, from + first), to: start + body.length };
}

/** Line and column of a place in a text, from 1. */
export function position(text: string, at: number): { line: number; column: number } {
  const before = text.slice(0, at);
  return { line: before.split('\n').length, column: at - before.lastIndexOf('\n') };
}
