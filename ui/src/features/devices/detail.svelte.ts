/** One workstation, with what its bridge tells of it, as it is now. */
import { api, asFailure, isAbort, type ApiFailure, type Schemas } from '../../lib/api';
import { onNews } from '../../lib/poll';

export class Detail {
  /** `null` until the first answer, and where there is none. */
  device = $state.raw<Schemas['DeviceDetail'] | null>(null);
  failure = $state.raw<ApiFailure | null>(null);

  constructor(private readonly id: string) {}

  /** Watches for as long as an `$effect` lives. */
  start = (): (() => void) => onNews(['devices'], (signal) => this.look(signal));

  async look(signal?: AbortSignal): Promise<void> {
    try {
      this.device = await api.get('/api/devices/{id}', { path: { id: this.id }, signal });
      this.failure = null;
    } catch (error) {
      if (isAbort(error)) return;
      const failure = asFailure(error);
      // Revoked meanwhile; the page says so from the list.
      if (failure.status === 404) this.device = null;
      else this.failure = failure;
    }
  }
}
