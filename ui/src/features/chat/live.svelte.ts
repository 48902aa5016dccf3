/** An answer that is being made: what was said so far, what it waits for, and how it ended. */
import type { Schemas } from '../../lib/api';
import type { RunEvent, StreamState } from '../../lib/events';
import type { Part } from './tree';

type Distribute<T> = T extends unknown ? Omit<T, 'seq' | 'time'> : never;
export type Outcome = Distribute<Extract<RunEvent, { type: 'ended' }>>;
export type Waiting = Schemas['Waiting'];

export class Live {
  parts = $state.raw<Part[]>([]);
  usage = $state.raw<Schemas['Use'][]>([]);
  waiting = $state.raw<Waiting | 'queued' | null>('queued');
  /** Since when it waits for that, in this browser's time. */
  since = $state(Date.now());
  link = $state<StreamState>('opening');
  outcome = $state.raw<Outcome | null>(null);
  stopping = $state(false);

  constructor(readonly run: string) {}

  /** Applies what happened, all of one frame at once. */
  apply(events: RunEvent[]): void {
    let parts = this.parts;
    for (const event of events) {
      switch (event.type) {
        case 'asked':
          this.#wait({ reason: 'asked' }, event.time);
          break;
        case 'waiting':
          this.#wait(event, event.time);
          break;
        case 'text':
        case 'reasoning':
          parts = grown(parts, event.type, event.text);
          this.waiting = null;
          break;
        case 'tool_call':
        case 'tool_result':
          parts = [...parts, event as Part];
          this.waiting = null;
          break;
        case 'used':
          this.usage = [...this.usage, event.usage];
          break;
        case 'ended':
          this.outcome = event;
          this.waiting = null;
          break;
        default:
          break;
      }
    }
    this.parts = parts;
  }

  #wait(waiting: Waiting, time: number): void {
    const same = this.waiting !== 'queued' && this.waiting?.reason === waiting.reason;
    this.waiting = waiting;
    // The Lab's clock may be ahead of this one.
    if (!same) this.since = Math.min(time, Date.now());
  }
}

function grown(parts: Part[], type: 'text' | 'reasoning', text: string): Part[] {
  const last = parts.at(-1);
  if (last?.type === type) return [...parts.slice(0, -1), { type, text: last.text + text }];
  return [...parts, { type, text }];
}
