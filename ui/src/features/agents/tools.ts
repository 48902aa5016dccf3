/** The tools that the Lab itself has, in words; those of servers keep their own names. */
import type { Schemas } from '../../lib/api';
import { m } from '../../lib/i18n.svelte';

const TITLES: Record<Schemas['Tool'], () => string> = {
  files_list: () => m.agents_tool_files_list(),
  files_read: () => m.agents_tool_files_read(),
  files_search: () => m.agents_tool_files_search(),
  files_write: () => m.agents_tool_files_write(),
  files_patch: () => m.agents_tool_files_patch(),
  tasks_list: () => m.agents_tool_tasks_list(),
  tasks_create: () => m.agents_tool_tasks_create(),
  tasks_update: () => m.agents_tool_tasks_update(),
  tasks_assign: () => m.agents_tool_tasks_assign(),
  delegate: () => m.agents_tool_delegate(),
  web_fetch: () => m.agents_tool_web_fetch(),
  propose_plan: () => m.agents_tool_propose_plan(),
};

/** What somebody can make a rule about, in the order in which models are told of it. */
export const OWN_TOOLS = (Object.keys(TITLES) as Schemas['Tool'][]).filter((tool) => tool !== 'propose_plan');

export function toolTitle(tool: string): string {
  return (TITLES as Record<string, () => string>)[tool]?.() ?? tool;
}

/** What is chosen of the Lab's own tools when one of them is turned on or off; `null` is all of them. */
export function turned(chosen: Schemas['Tool'][] | null, tool: Schemas['Tool'], on: boolean): Schemas['Tool'][] | null {
  const now = OWN_TOOLS.filter((one) => (one === tool ? on : chosen === null || chosen.includes(one)));
  return now.length === OWN_TOOLS.length ? null : now;
}

/** Whether a tool is a server's. */
export function isServed(tool: string): boolean {
  return tool.includes('__');
}

const LOOKS = new Set(['files_list', 'files_read', 'files_search', 'tasks_list']);

/** What happens where no rule says anything. A model on a workstation of one's own is the exception: it may be handed work. */
export function usually(tool: string): Schemas['Verdict'] {
  return LOOKS.has(tool) ? 'allow' : 'ask';
}

/** What a call is about, in a line. */
export function aboutCall(tool: string, args: unknown): string {
  if (typeof args !== 'object' || args === null) return '';
  const said = args as Record<string, unknown>;
  const name = { delegate: 'model', web_fetch: 'url', tasks_create: 'title', files_search: 'text' }[tool] ?? ['path', 'pattern', 'title', 'task', 'name', 'query'].find((key) => typeof said[key] === 'string');
  const value = name === undefined ? undefined : said[name];
  return typeof value === 'string' ? value : '';
}
