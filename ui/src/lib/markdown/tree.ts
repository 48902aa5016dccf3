/**
 * What may be drawn of a model's words: a closed list of elements with a closed list of attributes. Nothing here is ever HTML; a tag in
 * the text is text. So there is nothing to sanitise, and no way to a script, a style, a request or a form.
 */
import type { Token, Tokens } from 'marked';

export type Tag =
  | 'p' | 'h3' | 'h4' | 'h5' | 'h6' | 'ul' | 'ol' | 'li' | 'blockquote' | 'hr' | 'br' | 'strong' | 'em' | 'del' | 'code' | 'a'
  | 'table' | 'thead' | 'tbody' | 'tr' | 'th' | 'td' | 'span' | 'pre';
export type Attribute = 'href' | 'title' | 'start' | 'class' | 'scope';
export type Tree =
  | string
  | { tag: Tag; attributes?: Partial<Record<Attribute, string>>; children: Tree[] }
  | { code: string; language: string; closed: boolean }
  | { formula: string; block: boolean }
  | { picture: string; from: string; href: string };

const DEEPEST = 24;
// Beyond this a table is no longer read but scrolled past; as text it costs nothing.
const MOST_CELLS = 5_000;

export function tree(token: Token, depth = 0): Tree[] {
  if (depth > DEEPEST) return [visible(token.raw)];
  const inside = (list: Token[] | undefined): Tree[] => (list ?? []).flatMap((one) => tree(one, depth + 1));
  switch (token.type) {
    case 'space':
    case 'def':
      return [];
    case 'hr':
    case 'br':
      return [{ tag: token.type, children: [] }];
    case 'heading': {
      const { depth: level, tokens } = token as Tokens.Heading;
      // Below the page's own headings.
      return [{ tag: (['h3', 'h3', 'h4', 'h5', 'h6', 'h6'] as const)[level - 1] ?? 'h6', children: inside(tokens) }];
    }
    case 'paragraph':
      return [{ tag: 'p', children: inside((token as Tokens.Paragraph).tokens) }];
    case 'blockquote':
      return [{ tag: 'blockquote', children: inside((token as Tokens.Blockquote).tokens) }];
    case 'list':
      return [list(token as Tokens.List, inside)];
    case 'table':
      return [table(token as Tokens.Table, inside)];
    case 'code':
      return [code(token as Tokens.Code)];
    case 'plain':
      return [{ tag: 'pre', attributes: { class: 'plain' }, children: [visible(token.raw)] }];
    case 'mathBlock':
      return [{ formula: visible(String(token.text)), block: true }];
    case 'mathInline':
      return [{ formula: visible(String(token.text)), block: false }];
    case 'strong':
    case 'em':
    case 'del':
      return [{ tag: token.type, children: inside((token as Tokens.Strong).tokens) }];
    case 'codespan':
      return [{ tag: 'code', children: [visible((token as Tokens.Codespan).text)] }];
    case 'link':
      return link(token as Tokens.Link, inside);
    case 'image': {
      const { href, text } = token as Tokens.Image;
      const target = safeAddress(href);
      return target ? [{ picture: visible(text), from: new URL(target).host, href: target }] : [visible(text)];
    }
    case 'text': {
      const { tokens, text } = token as Tokens.Text;
      return tokens ? inside(tokens) : [visible(decode(text))];
    }
    case 'escape':
      return [visible((token as Tokens.Escape).text)];
    default:
      return [visible(token.raw)];
  }
}

function list(token: Tokens.List, inside: (tokens: Token[]) => Tree[]): Tree {
  const children = token.items.map((item): Tree => {
    const mark: Tree[] = item.task ? [{ tag: 'span', attributes: { class: 'task' }, children: [item.checked ? '☑' : '☐'] }] : [];
    return { tag: 'li', children: [...mark, ...inside(item.tokens.filter((one) => one.type !== 'checkbox'))] };
  });
  if (!token.ordered) return { tag: 'ul', children };
  return { tag: 'ol', attributes: Number.isInteger(token.start) ? { start: String(token.start) } : {}, children };
}

function table(token: Tokens.Table, inside: (tokens: Token[]) => Tree[]): Tree {
  if ((token.rows.length + 1) * token.header.length > MOST_CELLS) return { tag: 'pre', attributes: { class: 'plain' }, children: [visible(token.raw)] };
  const cell = (tag: 'th' | 'td') => (one: Tokens.TableCell): Tree => ({
    tag,
    attributes: { ...(tag === 'th' ? { scope: 'col' } : {}), ...(one.align ? { class: `align-${one.align}` } : {}) },
    children: inside(one.tokens),
  });
  return {
    tag: 'table',
    children: [
      { tag: 'thead', children: [{ tag: 'tr', children: token.header.map(cell('th')) }] },
      { tag: 'tbody', children: token.rows.map((row) => ({ tag: 'tr', children: row.map(cell('td')) })) },
    ],
  };
}

function code(token: Tokens.Code): Tree {
  const fence = /^ {0,3}(`{3,}|~{3,})/.exec(token.raw)?.[1];
  const closed = !fence || new RegExp(`\\n {0,3}${fence[0] === '`' ? '`' : '~'}{${fence.length},}[ \\t]*\\n*$`).test(token.raw);
  return { code: visible(token.text), language: visible((token.lang ?? '').split(/\s/)[0] ?? '').slice(0, 24), closed };
}

function link(token: Tokens.Link, inside: (tokens: Token[]) => Tree[]): Tree[] {
  const target = safeAddress(token.href);
  const children = inside(token.tokens);
  if (!target) return children;
  return [{ tag: 'a', attributes: { href: target, title: visible(target) }, children }];
}

/** An address that may be followed by a click: of the web or of mail, absolute and without a name and password in it. */
export function safeAddress(href: string): string | null {
  if (!/^(https?:\/\/|mailto:)/i.test(href)) return null;
  try {
    const url = new URL(href);
    return ['http:', 'https:', 'mailto:'].includes(url.protocol) && !url.username && !url.password ? url.href : null;
  } catch {
    return null;
  }
}

/** Signs that turn the order of text around, and such as cannot be seen, are shown as what they are: they serve to deceive. */
export function visible(text: string): string {
  return text.replaceAll(/[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g, (sign) => `[U+${sign.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}]`);
}

const NAMED: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0', copy: '©', hellip: '…', mdash: '—', ndash: '–', times: '×', rarr: '→', larr: '←', deg: '°', euro: '€' };

function decode(text: string): string {
  if (!text.includes('&')) return text;
  return text.replaceAll(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|([a-z]{2,8}));/gi, (all, decimal?: string, hex?: string, name?: string) => {
    if (name) return NAMED[name] ?? all;
    const point = decimal ? Number(decimal) : Number.parseInt(hex ?? '', 16);
    return point > 0 && point <= 0x10ffff && !(point >= 0xd800 && point <= 0xdfff) ? String.fromCodePoint(point) : '\ufffd';
  });
}
