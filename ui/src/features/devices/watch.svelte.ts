/** The account's workstations as they are now. */
import { api, asFailure, isAbort, type ApiFailure } from '../../lib/api';
import { poll } from '../../lib/poll';
import { machines, type Machine } from './machines';

/** With the answer's own time it stays below the two seconds in which a change of presence is to be seen. */
const EVERY_MS = 1_500;

export class Watch {
  /** `null` until the first answer. */
  list = $state.raw<Machine[] | null>(null);
  failure = $state.raw<ApiFailure | null>(null);

  /** Watches for as long as an `$effect` lives. */
  start = (): (() => void) => poll(EVERY_MS, (signal) => this.look(signal));

  async look(signal?: AbortSignal): Promise<void> {
    try {
      const [devices, models] = await Promise.all([api.get('/api/devices', { signal }), api.get('/api/models', { signal })]);
      this.list = machines(devices.data, models.data);
      this.failure = null;
    } catch (error) {
      if (!isAbort(error)) this.failure = asFailure(error);
    }
  }
}
