/** Draws blocks into a page, and only those that changed. Code, formulas and diagrams are dressed up later, when their part of the app came. */
import type { Block } from './blocks';
import { tree, type Tree } from './tree';

export type Words = { copy: string; copied: string; picture: (from: string) => string; table: string };

export class Drawing {
  #drawn: { block: Block; nodes: Node[] }[] = [];

  constructor(
    private readonly host: HTMLElement,
    private readonly words: Words,
  ) {}

  show(blocks: Block[]): void {
    let same = 0;
    while (same < blocks.length && this.#drawn[same]?.block === blocks[same]) same += 1;
    for (const old of this.#drawn.splice(same)) for (const node of old.nodes) node.parentNode?.removeChild(node);
    for (const block of blocks.slice(same)) {
      const nodes = tree(block.token).map((one) => this.#build(one));
      this.host.append(...nodes);
      this.#drawn.push({ block, nodes });
    }
  }

  #build(one: Tree): Node {
    if (typeof one === 'string') return document.createTextNode(one);
    if ('code' in one) return this.#code(one);
    if ('formula' in one) return formula(one);
    if ('picture' in one) return this.#picture(one);
    const node = document.createElement(one.tag);
    for (const [name, value] of Object.entries(one.attributes ?? {})) node.setAttribute(name, value);
    if (one.tag === 'a') outward(node as HTMLAnchorElement);
    if (/^(p|h\d|li|td|th|blockquote)$/.test(one.tag)) node.dir = 'auto';
    for (const child of one.children) node.append(this.#build(child));
    return one.tag === 'table' ? this.#scrolled(node) : node;
  }

  #scrolled(table: HTMLElement): HTMLElement {
    const frame = element('div', 'wide');
    frame.tabIndex = 0;
    frame.setAttribute('role', 'region');
    frame.setAttribute('aria-label', this.words.table);
    frame.append(table);
    return frame;
  }

  #code({ code, language, closed }: Extract<Tree, { code: string }>): HTMLElement {
    const figure = element('figure', 'code');
    const head = element('figcaption', '');
    const name = element('span', '');
    name.textContent = language;
    const copy = element('button', '') as HTMLButtonElement;
    copy.type = 'button';
    copy.textContent = this.words.copy;
    copy.addEventListener('click', () => {
      void navigator.clipboard.writeText(code).then(() => {
        copy.textContent = this.words.copied;
        setTimeout(() => (copy.textContent = this.words.copy), 1_500);
      });
    });
    head.append(name, copy);
    const pre = element('pre', '');
    pre.tabIndex = 0;
    const text = element('code', '');
    text.textContent = code;
    pre.append(text);
    figure.append(head, pre);
    if (closed && language) void import('./highlight').then(({ highlight }) => highlight(text, code, language));
    return figure;
  }

  // A picture out of a model's words would tell whoever keeps it that it was read, and whatever its address says: it is only named.
  #picture({ picture, from, href }: Extract<Tree, { picture: string }>): HTMLElement {
    const link = element('a', 'picture') as HTMLAnchorElement;
    link.setAttribute('href', href);
    outward(link);
    link.textContent = [picture, this.words.picture(from)].filter(Boolean).join(' · ');
    return link;
  }
}

function formula({ formula, block }: Extract<Tree, { formula: string }>): HTMLElement {
  const place = element(block ? 'div' : 'span', block ? 'formula block' : 'formula');
  place.textContent = formula;
  void import('./formula').then(({ typeset }) => typeset(place, formula, block));
  return place;
}

function outward(link: HTMLAnchorElement): void {
  link.target = '_blank';
  link.rel = 'noopener noreferrer nofollow';
}

function element(tag: string, name: string): HTMLElement {
  const node = document.createElement(tag);
  if (name) node.className = name;
  return node;
}
