/** Formulas: `$$…$$` and `\[…\]` on lines of their own, `$…$` and `\(…\)` within one. A price like $5 is none. */
import type { TokenizerAndRendererExtension } from 'marked';

const LONGEST = 4_000;

export const mathBlock: TokenizerAndRendererExtension = {
  name: 'mathBlock',
  level: 'block',
  start: (source) => {
    const at = source.search(/(^|\n) {0,3}(\$\$|\\\[)/);
    return at < 0 ? undefined : at;
  },
  tokenizer(source) {
    const found = /^ {0,3}(?:\$\$([^$]{1,4000}?)\$\$|\\\[([^]{1,4000}?)\\\])[ \t]*(?:\n|$)/.exec(source);
    if (!found) return undefined;
    return { type: 'mathBlock', raw: found[0], text: (found[1] ?? found[2] ?? '').trim() };
  },
};

export const mathInline: TokenizerAndRendererExtension = {
  name: 'mathInline',
  level: 'inline',
  start: (source) => {
    const at = source.search(/\$|\\\(/);
    return at < 0 ? undefined : at;
  },
  tokenizer(source) {
    const found = /^(?:\$\$([^$\n]+)\$\$|\$(?!\s)([^$\n]*[^$\s\\])\$(?!\d)|\\\((.+?)\\\))/.exec(source.slice(0, LONGEST));
    if (!found) return undefined;
    return { type: 'mathInline', raw: found[0], text: found[1] ?? found[2] ?? found[3] ?? '' };
  },
};
