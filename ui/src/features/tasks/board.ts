/** A board as columns. The Lab keeps one order of all tasks; a column shows those of its state in that order. */
import type { Schemas } from '../../lib/api';

export type Task = Schemas['Task'];
export type TaskState = Schemas['TaskState'];
export type Place = Schemas['TaskPlace'];
export type Spot = { state: TaskState; index: number };

export const states = ['open', 'in_progress', 'done', 'cancelled'] as const satisfies TaskState[];

export type Wanted = { words: string; who: 'all' | 'nobody' | 'person' | `agent:${string}` };

/** The tasks of each state that are wanted, as they stand. */
export function columns(tasks: Task[], wanted: Wanted): Record<TaskState, Task[]> {
  const found: Record<TaskState, Task[]> = { open: [], in_progress: [], done: [], cancelled: [] };
  for (const task of tasks) if (matches(task, wanted)) found[task.state].push(task);
  return found;
}

function matches(task: Task, { words, who }: Wanted): boolean {
  const text = `${task.title}\n${task.body}`.toLowerCase();
  const has = words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  return has && (who === 'all' || who === assigneeKey(task.assignee));
}

/** Whose task it is, as a choice of a list. */
export function assigneeKey(assignee: Task['assignee']): Exclude<Wanted['who'], 'all'> {
  if (!assignee) return 'nobody';
  return assignee.type === 'person' ? 'person' : `agent:${assignee.name}`;
}

export function assigneeOf(key: string): Schemas['Assignee'] | null {
  if (key === 'person') return { type: 'person' };
  return key.startsWith('agent:') ? { type: 'agent', name: key.slice('agent:'.length) } : null;
}

/** The agents that have a task here, by name. */
export function agentsIn(tasks: Task[]): string[] {
  const names = tasks.flatMap(({ assignee }) => (assignee?.type === 'agent' ? [assignee.name] : []));
  return [...new Set(names)].sort();
}

/** Where a task stands. */
export function spotOf(shown: Record<TaskState, Task[]>, id: string): Spot | null {
  for (const state of states) {
    const index = shown[state].findIndex((task) => task.id === id);
    if (index >= 0) return { state, index };
  }
  return null;
}

/** What the Lab is told so that a task comes to stand at a spot; the spot counts the others of its column. */
export function placeAt(shown: Record<TaskState, Task[]>, id: string, { state, index }: Spot): Place {
  const before = shown[state].filter((task) => task.id !== id)[index - 1];
  return before ? { at: 'after', task: before.id } : { at: 'first' };
}

/** The board as it will be, shown before the Lab has answered. */
export function moved(tasks: Task[], id: string, state: TaskState, place: Place): Task[] {
  const task = tasks.find((one) => one.id === id);
  if (!task) return tasks;
  const others = tasks.filter((one) => one.id !== id);
  const now = { ...task, state };
  if (place.at === 'first') return [now, ...others];
  const after = place.at === 'after' ? others.findIndex((one) => one.id === place.task) : others.length - 1;
  return [...others.slice(0, after + 1), now, ...others.slice(after + 1)];
}

/** Where an arrow brings a task from a spot: up and down in its column, left and right to the next one, at the same height. */
export function stepped(shown: Record<TaskState, Task[]>, { state, index }: Spot, key: string): Spot | null {
  const last = shown[state].length - 1;
  if (key === 'ArrowUp') return index > 0 ? { state, index: index - 1 } : null;
  if (key === 'ArrowDown') return index < last ? { state, index: index + 1 } : null;
  if (key === 'Home') return { state, index: 0 };
  if (key === 'End') return { state, index: last };
  const aside = key === 'ArrowLeft' ? -1 : key === 'ArrowRight' ? 1 : 0;
  const next = states[states.indexOf(state) + aside];
  if (aside === 0 || !next) return null;
  return { state: next, index: Math.min(index, shown[next].length) };
}
