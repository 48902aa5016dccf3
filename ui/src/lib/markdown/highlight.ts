/** Colours code of the twelve languages that are asked for most. Fetched with the first block of code that names its language. */
import hljs from 'highlight.js/lib/core';
import bash from 'highlight.js/lib/languages/bash';
import cpp from 'highlight.js/lib/languages/cpp';
import css from 'highlight.js/lib/languages/css';
import go from 'highlight.js/lib/languages/go';
import java from 'highlight.js/lib/languages/java';
import javascript from 'highlight.js/lib/languages/javascript';
import json from 'highlight.js/lib/languages/json';
import python from 'highlight.js/lib/languages/python';
import rust from 'highlight.js/lib/languages/rust';
import sql from 'highlight.js/lib/languages/sql';
import typescript from 'highlight.js/lib/languages/typescript';
import xml from 'highlight.js/lib/languages/xml';

for (const [name, language] of Object.entries({ bash, cpp, css, go, java, javascript, json, python, rust, sql, typescript, xml })) hljs.registerLanguage(name, language);

// Longer code stays plain: colouring it would hold the page up.
const LONGEST = 60_000;

export function highlight(place: HTMLElement, code: string, language: string): void {
  if (code.length > LONGEST || !hljs.getLanguage(language)) return;
  place.replaceChildren(spans(hljs.highlight(code, { language, ignoreIllegals: true }).value));
}

/** The library's answer, which is nothing but `<span class="…">`, `</span>` and escaped text, made into nodes without a parser of HTML. */
function spans(value: string): DocumentFragment {
  const root = document.createDocumentFragment();
  let at: Node = root;
  for (const [, name, closing, text] of value.matchAll(/<span class="([^"<>]*)">|(<\/span>)|([^<]+)/g)) {
    if (name !== undefined) {
      const span = document.createElement('span');
      span.className = name;
      at = at.appendChild(span);
    } else if (closing) at = at.parentNode ?? root;
    else at.appendChild(document.createTextNode(unescape(text ?? '')));
  }
  return root;
}

function unescape(text: string): string {
  const signs: Record<string, string> = { '&lt;': '<', '&gt;': '>', '&quot;': '"', '&#x27;': "'", '&amp;': '&' };
  return text.replaceAll(/&(?:lt|gt|quot|#x27|amp);/g, (sign) => signs[sign] ?? sign);
}
