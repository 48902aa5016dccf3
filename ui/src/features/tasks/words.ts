import { m } from '../../lib/i18n.svelte';
import type { Task, TaskState } from './board';

export const stateWord: Record<TaskState, () => string> = {
  open: () => m.tasks_open(),
  in_progress: () => m.tasks_in_progress(),
  done: () => m.tasks_done(),
  cancelled: () => m.tasks_cancelled(),
};

export const stateTone = { open: 'off', in_progress: 'busy', done: 'good', cancelled: 'bad' } as const;

export function assigneeWord(assignee: Task['assignee']): string {
  if (!assignee) return m.tasks_nobody();
  return assignee.type === 'person' ? m.tasks_you() : assignee.name;
}
