/** What is different between two texts, line by line. */

export type DiffLine = {
  kind: 'same' | 'gone' | 'new';
  text: string;
  /** Its number in the text before, from 1; none where it is new. */
  before?: number;
  /** Its number in the text after, from 1; none where it is gone. */
  after?: number;
  /** Which characters of it are not in the line that it stands against. */
  changed?: [from: number, to: number];
  /** The last line of a text that does not end with a line break. */
  unended?: true;
};

/** Lines that are shown, or that are all the same and far from what is not. */
export type DiffPart = { folded: boolean; lines: DiffLine[] };

// Two texts that differ in more lines than this have little in common: the search for it would take long and show nothing.
const MOST_CHANGES = 2_000;
// Numbers that the search may keep in memory: 20 MB of them.
const MOST_KEPT = 5_000_000;

export function diffLines(before: string, after: string): DiffLine[] {
  const [old, now] = [split(before), split(after)];
  let head = 0;
  while (head < old.length && head < now.length && same(old[head], now[head])) head += 1;
  let tail = 0;
  while (tail < old.length - head && tail < now.length - head && same(old[old.length - 1 - tail], now[now.length - 1 - tail])) tail += 1;

  const lines: DiffLine[] = [];
  let [x, y] = [0, 0];
  const keep = (): void => void lines.push({ kind: 'same', ...now[y]!, before: ++x, after: ++y });
  const drop = (): void => void lines.push({ kind: 'gone', ...old[x]!, before: ++x });
  const add = (): void => void lines.push({ kind: 'new', ...now[y]!, after: ++y });

  while (x < head) keep();
  for (const step of steps(old.slice(head, old.length - tail), now.slice(head, now.length - tail))) {
    if (step === 'same') keep();
    else if (step === 'gone') drop();
    else add();
  }
  while (x < old.length) keep();
  compare(lines);
  return lines;
}

/** How many lines are new and how many gone. */
export function tally(lines: DiffLine[]): { added: number; removed: number } {
  return { added: lines.filter((line) => line.kind === 'new').length, removed: lines.filter((line) => line.kind === 'gone').length };
}

/** The same lines in parts: what is farther than `around` lines from any change is folded. */
export function fold(lines: DiffLine[], around = 3): DiffPart[] {
  const near = new Uint8Array(lines.length);
  for (const [at, line] of lines.entries()) {
    if (line.kind !== 'same') near.fill(1, Math.max(0, at - around), at + around + 1);
  }
  const parts: DiffPart[] = [];
  for (const [at, line] of lines.entries()) {
    const folded = near[at] === 0;
    const last = parts.at(-1);
    if (last?.folded === folded) last.lines.push(line);
    else parts.push({ folded, lines: [line] });
  }
  // A fold that hides one line takes as much room as the line.
  return parts.map((part) => (part.lines.length === 1 ? { ...part, folded: false } : part));
}

type Line = { text: string; unended?: true };

function split(text: string): Line[] {
  if (text === '') return [];
  const lines: Line[] = text.split(/\r?\n/).map((line) => ({ text: line }));
  if (lines.at(-1)?.text === '') lines.pop();
  else lines[lines.length - 1]!.unended = true;
  return lines;
}

function same(a: Line | undefined, b: Line | undefined): boolean {
  return a !== undefined && b !== undefined && a.text === b.text && a.unended === b.unended;
}

/** The shortest way from one list to the other, after Myers (1986): the furthest point on each diagonal for each number of changes. */
function steps(old: Line[], now: Line[]): DiffLine['kind'][] {
  const most = Math.min(old.length + now.length, MOST_CHANGES);
  const furthest: Int32Array[] = [];
  const reached = new Int32Array(2 * most + 3);
  const at = (diagonal: number): number => diagonal + most + 1;
  for (let changes = 0; changes <= most; changes += 1) {
    furthest.push(reached.slice());
    for (let k = -changes; k <= changes; k += 2) {
      const down = k === -changes || (k !== changes && reached[at(k - 1)]! < reached[at(k + 1)]!);
      let x = down ? reached[at(k + 1)]! : reached[at(k - 1)]! + 1;
      while (x < old.length && x - k < now.length && same(old[x], now[x - k])) x += 1;
      reached[at(k)] = x;
      if (x >= old.length && x - k >= now.length) return walkBack(furthest, old.length, now.length, at);
    }
    if ((changes + 1) * reached.length > MOST_KEPT) break;
  }
  return [...old.map(() => 'gone' as const), ...now.map(() => 'new' as const)];
}

function walkBack(furthest: Int32Array[], toX: number, toY: number, at: (diagonal: number) => number): DiffLine['kind'][] {
  const found: DiffLine['kind'][] = [];
  let [x, y] = [toX, toY];
  for (let changes = furthest.length - 1; changes >= 0; changes -= 1) {
    const reached = furthest[changes]!;
    const k = x - y;
    const down = k === -changes || (k !== changes && reached[at(k - 1)]! < reached[at(k + 1)]!);
    const before = down ? k + 1 : k - 1;
    const fromX = changes === 0 ? 0 : reached[at(before)]!;
    const fromY = changes === 0 ? 0 : fromX - before;
    const [endX, endY] = changes === 0 ? [0, 0] : down ? [fromX, fromY + 1] : [fromX + 1, fromY];
    while (x > endX && y > endY) {
      found.push('same');
      [x, y] = [x - 1, y - 1];
    }
    if (changes > 0) found.push(down ? 'new' : 'gone');
    [x, y] = [fromX, fromY];
  }
  return found.reverse();
}

/** Marks what is other within a line, where as many lines came as went. */
function compare(lines: DiffLine[]): void {
  for (let at = 0; at < lines.length; ) {
    const gone = run(lines, at, 'gone');
    const came = run(lines, at + gone, 'new');
    if (gone > 0 && gone === came) for (let one = 0; one < gone; one += 1) mark(lines[at + one]!, lines[at + gone + one]!);
    at += Math.max(gone + came, 1);
  }
}

function run(lines: DiffLine[], from: number, kind: DiffLine['kind']): number {
  let to = from;
  while (lines[to]?.kind === kind) to += 1;
  return to - from;
}

function mark(old: DiffLine, now: DiffLine): void {
  const most = Math.min(old.text.length, now.text.length);
  let head = 0;
  while (head < most && old.text[head] === now.text[head]) head += 1;
  let tail = 0;
  while (tail < most - head && old.text.at(-1 - tail) === now.text.at(-1 - tail)) tail += 1;
  // Lines with nothing in common are simply other lines.
  if (head + tail < most / 3) return;
  if (old.text.length > head + tail) old.changed = [head, old.text.length - tail];
  if (now.text.length > head + tail) now.changed = [head, now.text.length - tail];
}
