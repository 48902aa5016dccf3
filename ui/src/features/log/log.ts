/** What is wanted of a log, and how its pages are read until enough of it is found: the Lab filters by run and kind, the rest is looked at here. */
import type { Schemas } from '../../lib/api';

export type Line = Schemas['OperationView'];
export type Action = Line['action'];
export type Page = { data: Line[]; next?: string | null };

export const groups = {
  agents: ['run_started', 'run_stopped', 'run_ended', 'model_asked', 'planned', 'delegated', 'approval_answered', 'tool_used', 'web_fetched'],
  files: ['files_listed', 'files_searched', 'file_read', 'file_written', 'file_patched', 'file_recovered', 'file_renamed', 'file_deleted'],
  tasks: ['tasks_listed', 'task_created', 'task_changed', 'task_deleted'],
  conversations: ['conversation_created', 'conversation_changed', 'conversation_deleted'],
  rules: ['rule_added', 'rule_removed', 'tool_server_added', 'tool_server_changed', 'tool_server_removed'],
  keys: ['key_created', 'key_changed', 'key_revoked'],
  project: ['project_created', 'project_changed', 'project_deleted', 'instructions_changed'],
} as const satisfies Record<string, Action[]>;
export type Group = keyof typeof groups;

export type Wanted = {
  who: 'all' | Line['actor']['type'];
  what: 'all' | Action | `group:${Group}`;
  outcome: 'all' | Line['result']['outcome'];
  /** Milliseconds since 1970; open where there is none. */
  from?: number;
  until?: number;
};

/** The kind that the Lab itself can look for. */
export function actionOf({ what }: Wanted): Action | undefined {
  return what === 'all' || what.startsWith('group:') ? undefined : (what as Action);
}

export function matches(line: Line, { who, what, outcome, from, until }: Wanted): boolean {
  if (who !== 'all' && line.actor.type !== who) return false;
  if (outcome !== 'all' && line.result.outcome !== outcome) return false;
  if (what.startsWith('group:')) {
    const wanted: readonly Action[] = groups[what.slice('group:'.length) as Group];
    if (!wanted.includes(line.action)) return false;
  } else if (what !== 'all' && line.action !== what) return false;
  return (from === undefined || line.time >= from) && (until === undefined || line.time < until);
}

/** The time between two days of a calendar, both included, where this browser is. */
export function between(first: string, last: string): Pick<Wanted, 'from' | 'until'> {
  const day = (text: string, plus: number): number | undefined => {
    const found = /^(\d{4})-(\d{2})-(\d{2})$/.exec(text);
    return found ? new Date(Number(found[1]), Number(found[2]) - 1, Number(found[3]) + plus).getTime() : undefined;
  };
  return { from: day(first, 0), until: day(last, 1) };
}

// Lines that are looked at before somebody is asked whether to look further.
const MOST_PAGES = 10;

export type Part = { lines: Line[]; next: string | null; looked: number };

/** Reads pages, newest first, until `enough` lines match, the time is over, or somebody should be asked. */
export async function read(ask: (cursor: string | null) => Promise<Page>, wanted: Wanted, cursor: string | null, enough: number): Promise<Part> {
  const part: Part = { lines: [], next: cursor, looked: 0 };
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const { data, next } = await ask(part.next);
    part.looked += data.length;
    part.lines.push(...data.filter((line) => matches(line, wanted)));
    const oldest = data.at(-1);
    const past = wanted.from !== undefined && oldest !== undefined && oldest.time < wanted.from;
    part.next = past ? null : (next ?? null);
    if (part.next === null || part.lines.length >= enough) break;
  }
  return part;
}

/** What was given, name by name; what is not plain text as it is written in JSON. */
export function given(line: Line): { name: string; text: string; plain: boolean }[] {
  return Object.entries((line.arguments ?? {}) as Record<string, unknown>)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => ({
      name,
      text: typeof value === 'string' ? value : JSON.stringify(value, null, 2),
      plain: typeof value !== 'object',
    }));
}
