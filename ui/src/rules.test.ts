// The house's rules for this folder, read out of the sources themselves.
import { readdirSync, readFileSync } from 'node:fs';
import { parse } from 'svelte/compiler';
import { describe, expect, it } from 'vitest';

const files = readdirSync('src', { recursive: true, encoding: 'utf8' })
  .map((name) => name.replaceAll('\\', '/'))
  .filter((name) => /\.(svelte|ts)$/.test(name) && !/^lib\/(paraglide|gen)\//.test(name));
const sources = new Map(files.map((name) => [name, readFileSync(`src/${name}`, 'utf8')]));
const components = [...sources].filter(([name]) => name.endsWith('.svelte'));

/** The folder of `src` that an import of a file leads to, such as `features/chat`. */
function leadsTo(file: string, target: string): string | null {
  if (!target.startsWith('.')) return null;
  const path = new URL(target, `file:///${file}`).pathname.slice(1);
  return folder(path);
}
function folder(path: string): string {
  const [first = '', second = ''] = path.split('/');
  return first === 'features' ? `features/${second}` : first;
}

it('arrows go down: features know kit and lib, never each other; lib knows nobody', () => {
  const wrong: string[] = [];
  for (const [file, source] of sources) {
    const own = folder(file);
    for (const [, target = ''] of source.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)) {
      const to = leadsTo(file, target);
      if (to === null || to === own || own === 'lab') continue;
      const allowed = own.startsWith('features/') ? ['kit', 'lib'] : own === 'kit' ? ['lib'] : [];
      if (!allowed.includes(to) && !(file.startsWith('lib/commands') && target === '../kit/drawing')) wrong.push(`${file} -> ${target}`);
    }
  }
  expect(wrong).toEqual([]);
});

type Node = { type?: string; name?: string; data?: string; value?: unknown; [key: string]: unknown };

function* nodes(at: unknown): Generator<Node> {
  if (Array.isArray(at)) for (const one of at) yield* nodes(one);
  else if (at !== null && typeof at === 'object') {
    const node = at as Node;
    if (typeof node.type === 'string') yield node;
    // The text of an attribute is no visible text; those that are read aloud are looked at by name.
    if (node.type === 'Attribute' || node.type === 'StyleDirective') return yield* nodes(pieces(node).filter((one) => one.type !== 'Text'));
    for (const [key, child] of Object.entries(node)) if (key !== 'metadata' && key !== 'parent') yield* nodes(child);
  }
}

const pieces = (attribute: Node): Node[] => (Array.isArray(attribute.value) ? (attribute.value as Node[]) : []);

describe('every visible word is a message', () => {
  // What is a name or a sign, the same in every language.
  const same = /^(1K4|[\w-]+\.(?:txt|json|toml|md|zip)|GitHub|Google|OpenAI|Ollama|curl|Python|JavaScript|JSON|CSV|ms|s|tokens\/s|https:\/\/|[A-Z]{4}-[A-Z]{4})$/;
  const isWord = (text: string): boolean => /\p{L}{2,}/u.test(text) && !same.test(text.trim());

  it.each(components)('%s', (_, source) => {
    const found: string[] = [];
    for (const node of nodes(parse(source, { modern: true }).fragment)) {
      if (node.type === 'Text' && isWord(node.data ?? '')) found.push(`text: ${node.data?.trim()}`);
      if (node.type !== 'Attribute') continue;
      const spoken = ['aria-label', 'title', 'placeholder', 'alt', 'label', 'text', 'hint'].includes(node.name ?? '');
      const text = pieces(node).map((one) => (one.type === 'Text' ? (one.data ?? '') : '')).join('');
      if (spoken && isWord(text)) found.push(`${node.name}: ${text}`);
    }
    expect(found).toEqual([]);
  });
});

it.each(components)('%s draws no HTML and brings no inline style', (_, source) => {
  expect(source).not.toMatch(/\{@html/);
  expect(source).not.toMatch(/\sstyle="/);
});

describe('messages', () => {
  const areas = readdirSync('messages/en');
  const read = (locale: string, area: string): Record<string, unknown> => JSON.parse(readFileSync(`messages/${locale}/${area}`, 'utf8')) as Record<string, unknown>;
  const blanks = (text: unknown): string[] => [...new Set([...JSON.stringify(text).matchAll(/\{(\w+)\}/g)].map(([, name]) => name ?? ''))].sort();

  it.each(areas)('%s says the same in both languages, with the same blanks', (area) => {
    const [en, de] = [read('en', area), read('de', area)];
    expect(Object.keys(de).sort()).toEqual(Object.keys(en).sort());
    for (const [key, text] of Object.entries(en)) expect(blanks(de[key]), key).toEqual(blanks(text));
  });

  it.each(areas)('%s is calm', (area) => {
    for (const locale of ['en', 'de']) for (const [key, text] of Object.entries(read(locale, area))) if (key !== '$schema') expect(JSON.stringify(text), key).not.toMatch(/!(\s|"|$)/);
  });

  it('are each of one area', () => {
    const all = areas.flatMap((area) => Object.keys(read('en', area))).filter((key) => key !== '$schema');
    expect(all.filter((key, at) => all.indexOf(key) !== at)).toEqual([]);
  });
});
