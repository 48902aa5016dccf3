import { expect, test } from 'vitest';
import { agentsIn, assigneeKey, assigneeOf, columns, moved, placeAt, spotOf, stepped, type Task, type TaskState } from './board';

const task = (id: string, state: TaskState = 'open', more: Partial<Task> = {}): Task => ({
  id, state, title: id, body: '', project: 'prj', version: 1, created_at: 0, updated_at: 0, assignee: null, ...more,
});
const board = [task('a'), task('b', 'done'), task('c'), task('d', 'in_progress'), task('e')];
const all = { words: '', who: 'all' } as const;
const ids = (tasks: Task[]): string => tasks.map(({ id }) => id).join('');

test('a column has the tasks of its state in the order of the board', () => {
  const shown = columns(board, all);
  expect([ids(shown.open), ids(shown.in_progress), ids(shown.done), ids(shown.cancelled)]).toEqual(['ace', 'd', 'b', '']);
});

test('finds by words and by whose it is', () => {
  const tasks = [task('a', 'open', { title: 'Photograph capsules', assignee: { type: 'person' } }), task('b', 'open', { body: 'capsules', assignee: { type: 'agent', name: 'q' } }), task('c')];
  expect(ids(columns(tasks, { words: 'CAPS', who: 'all' }).open)).toBe('ab');
  expect(ids(columns(tasks, { words: 'caps photo', who: 'all' }).open)).toBe('a');
  expect(ids(columns(tasks, { words: '', who: 'agent:q' }).open)).toBe('b');
  expect(ids(columns(tasks, { words: '', who: 'nobody' }).open)).toBe('c');
  expect(agentsIn(tasks)).toEqual(['q']);
  for (const { assignee } of tasks) expect(assigneeOf(assigneeKey(assignee))).toEqual(assignee ?? null);
});

test('what is told to the Lab brings a task to its spot', () => {
  const shown = columns(board, all);
  for (const state of ['open', 'done', 'cancelled'] as const) {
    const room = shown[state].filter(({ id }) => id !== 'a').length;
    for (let index = 0; index <= room; index += 1) {
      const after = columns(moved(board, 'a', state, placeAt(shown, 'a', { state, index })), all);
      expect(spotOf(after, 'a')).toEqual({ state, index });
    }
  }
});

test('moves keep every task, once', () => {
  expect(ids(moved(board, 'c', 'done', { at: 'last' }))).toBe('abdec');
  expect(ids(moved(board, 'e', 'open', { at: 'first' }))).toBe('eabcd');
  expect(moved(board, 'nobody', 'open', { at: 'first' })).toBe(board);
});

test('arrows go as far as the board does', () => {
  const shown = columns(board, all);
  expect(stepped(shown, { state: 'open', index: 0 }, 'ArrowUp')).toBeNull();
  expect(stepped(shown, { state: 'open', index: 2 }, 'ArrowDown')).toBeNull();
  expect(stepped(shown, { state: 'open', index: 2 }, 'ArrowRight')).toEqual({ state: 'in_progress', index: 1 });
  expect(stepped(shown, { state: 'open', index: 0 }, 'ArrowLeft')).toBeNull();
  expect(stepped(shown, { state: 'cancelled', index: 0 }, 'ArrowRight')).toBeNull();
  expect(stepped(shown, { state: 'open', index: 1 }, 'End')).toEqual({ state: 'open', index: 2 });
});
