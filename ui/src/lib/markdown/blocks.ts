/**
 * Markdown that grows. What is finished is parsed once; only the open tail is parsed again when words come. The last two blocks that are
 * not empty stay open, because the next words may join them: a list goes on, a paragraph becomes a heading or a table.
 */
import { Marked, type Token, type TokensList } from 'marked';
import { mathBlock, mathInline } from './math';

export type Block = { readonly raw: string; readonly token: Token };

const marked = new Marked({ gfm: true, extensions: [mathBlock, mathInline] });

const OPEN_BLOCKS = 2;
// A line this long is no prose, and looking for emphasis in it can take seconds.
const LONGEST_LINE = 8_000;
// A tail this long is parsed again only after it has grown by a part of itself, so that a huge block stays linear.
const LONG_TAIL = 50_000;
const GROWTH = 256;
const SEAM = 256;

export class Blocks {
  settled: Block[] = [];
  open: Block[] = [];
  #source = '';
  #settledLength = 0;
  #parsedLength = 0;
  #links: TokensList['links'] = {};
  #done = false;

  /** All blocks, in order. A block that has not changed is the same object. */
  get all(): Block[] {
    return this.open.length === 0 ? this.settled : [...this.settled, ...this.open];
  }

  /** Takes the whole text as it is now. Where it only grew, what is settled stays. */
  update(text: string, done: boolean): void {
    const source = text.includes('\r') ? text.replaceAll(/\r\n?/g, '\n') : text;
    if (source === this.#source && done === this.#done) return;
    if (!this.#grew(source, done) || (this.#done && !done)) this.#restart();
    this.#source = source;
    this.#done = done;
    const tail = source.slice(this.#settledLength);
    if (!done && tail.length > LONG_TAIL && source.length - this.#parsedLength < tail.length / GROWTH) return;
    this.#parsedLength = source.length;
    this.#parse(tail, done);
  }

  // While words come, the place where the old text ends is compared; all of it once they are complete.
  #grew(source: string, done: boolean): boolean {
    const old = this.#source;
    if (done) return source.startsWith(old);
    return source.length >= old.length && source.startsWith(old.slice(-SEAM), Math.max(0, old.length - SEAM));
  }

  #restart(): void {
    this.settled = [];
    this.open = [];
    this.#settledLength = 0;
    this.#parsedLength = 0;
    this.#links = {};
  }

  #parse(tail: string, done: boolean): void {
    const blocks = lex(tail, this.#links);
    // A reference may stand further down than where it is used: only the whole text tells.
    if (done && (Object.keys(this.#links).length > 0 || blocks.some((block) => block.token.type === 'def'))) {
      this.settled = lex(this.#source, {});
      this.open = [];
      this.#settledLength = this.#source.length;
      return;
    }
    const cut = done ? blocks.length : firstOpen(blocks);
    const finished = blocks.slice(0, cut);
    const length = finished.reduce((sum, block) => sum + block.raw.length, 0);
    // The parser tidies the end of some half-written lists; what is not the text itself stays open until it is.
    const settles = done || (length > 0 && tail.startsWith(finished.map((block) => block.raw).join('')));
    if (!settles) {
      this.open = keepSame(this.open, blocks);
      return;
    }
    if (length > 0) this.settled = [...this.settled, ...keepSame(this.open, finished)];
    this.#settledLength += length;
    for (const { token } of finished) {
      // What is written half is no reference yet; in a settled block it is whole.
      if (token.type === 'def') this.#links[String(token.tag)] ??= { href: String(token.href), title: token.title as string };
    }
    this.open = keepSame(this.open.slice(cut), blocks.slice(cut));
  }
}

function firstOpen(blocks: Block[]): number {
  let found = 0;
  for (let at = blocks.length - 1; at >= 0; at -= 1) {
    if (blocks[at]?.token.type !== 'space') found += 1;
    if (found === OPEN_BLOCKS) return at;
  }
  return 0;
}

/** Blocks of the same text in the same place stay the same objects: what is drawn for them stays drawn. */
function keepSame(old: Block[], now: Block[]): Block[] {
  return now.map((block, at) => {
    const was = old[at];
    return was && was.raw === block.raw && was.token.type === block.token.type ? was : block;
  });
}

function lex(source: string, links: TokensList['links']): Block[] {
  const long = longLine(source);
  if (long) {
    const [start, end] = long;
    return [...lex(source.slice(0, start), links), plain(source.slice(start, end)), ...lex(source.slice(end), links)];
  }
  try {
    const lexer = new marked.Lexer({ ...marked.defaults });
    Object.assign(lexer.tokens.links, links);
    return lexer.lex(source).map((token) => ({ raw: token.raw, token }));
  } catch {
    // Nested deeper than the parser can follow.
    return source === '' ? [] : [plain(source)];
  }
}

function longLine(source: string): [number, number] | null {
  if (source.length < LONGEST_LINE) return null;
  for (let start = 0; start < source.length; ) {
    const newline = source.indexOf('\n', start);
    const end = newline < 0 ? source.length : newline + 1;
    if (end - start > LONGEST_LINE) return [start, end];
    start = end;
  }
  return null;
}

function plain(raw: string): Block {
  return { raw, token: { type: 'plain', raw, text: raw } };
}
