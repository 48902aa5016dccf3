/** A project's board as it stands, and as it will once the Lab has answered. */
import { api, asFailure, isAbort, type ApiFailure } from '../../lib/api';
import { m } from '../../lib/i18n.svelte';
import { moved, type Place, type Task, type TaskState } from './board';

export class Tasks {
  list = $state.raw<Task[] | null>(null);
  failure = $state<ApiFailure | null>(null);
  /** What came of a move, where it came to nothing. */
  trouble = $state('');
  // An answer from before a change would undo it on the screen.
  #changes = 0;
  #pending = 0;

  constructor(private readonly project: string) {}

  async load(signal?: AbortSignal): Promise<void> {
    const changes = this.#changes;
    try {
      const { data } = await api.get('/api/projects/{id}/tasks', { path: { id: this.project }, signal });
      if (changes === this.#changes && this.#pending === 0) this.list = data;
      this.failure = null;
    } catch (error) {
      if (!isAbort(error)) this.failure = asFailure(error);
    }
  }

  /** Shows a move at once. Returns what undoes it on the screen. */
  preview(id: string, state: TaskState, place: Place): () => void {
    const before = this.list;
    if (!before) return () => {};
    this.#changes += 1;
    this.#pending += 1;
    this.list = moved(before, id, state, place);
    return () => {
      this.#pending -= 1;
      this.list = before;
    };
  }

  async move(id: string, state: TaskState, place: Place): Promise<void> {
    const task = this.list?.find((one) => one.id === id);
    const before = this.list;
    if (!task || !before) return;
    this.#changes += 1;
    this.#pending += 1;
    this.trouble = '';
    this.list = moved(before, id, state, place);
    try {
      const now = await api.patch('/api/tasks/{id}', { path: { id }, body: { state, place, version: task.version } });
      this.keep(now);
    } catch (error) {
      const failure = asFailure(error);
      this.list = before;
      this.trouble = failure.code === 'changed_meanwhile' ? m.tasks_moved_meanwhile() : `${failure.message} ${m.tasks_put_back({ title: task.title })}`;
    } finally {
      this.#pending -= 1;
    }
    if (this.trouble) await this.load();
  }

  /** A task as the Lab has just told it, new or changed. */
  keep(task: Task): void {
    this.#changes += 1;
    const known = this.list?.some((one) => one.id === task.id);
    this.list = known ? (this.list?.map((one) => (one.id === task.id ? task : one)) ?? null) : [...(this.list ?? []), task];
  }

  drop(id: string): void {
    this.#changes += 1;
    this.list = this.list?.filter((one) => one.id !== id) ?? null;
  }
}
