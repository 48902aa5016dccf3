/** The account's workstations as they are now. */
import { api, asFailure, isAbort, type ApiFailure } from '../../lib/api';
import { onNews } from '../../lib/poll';
import { machines, type Machine } from './machines';

export class Watch {
  /** `null` until the first answer. */
  list = $state.raw<Machine[] | null>(null);
  failure = $state.raw<ApiFailure | null>(null);

  /** Watches for as long as an `$effect` lives. */
  start = (): (() => void) => onNews(['devices'], (signal) => this.look(signal));

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
