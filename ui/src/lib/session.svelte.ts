/** Who is signed in here. The session is a cookie that no script can read; the account is what the Lab answers to it. */
import { api, onSignedOut, type ApiFailure, type Schemas } from './api';
import { asFailure } from './api';
import { router } from './router.svelte';

const RETURN = '1k4.return';

class Session {
  state = $state<'unknown' | 'in' | 'out' | 'failed'>('unknown');
  account = $state<Schemas['Account'] | null>(null);
  failure = $state<ApiFailure | null>(null);

  constructor() {
    onSignedOut(() => this.#left());
  }

  /** Asks who is signed in. */
  async look(): Promise<void> {
    try {
      this.account = await api.get('/api/account');
      this.state = 'in';
      this.failure = null;
    } catch (error) {
      const failure = asFailure(error);
      if (failure.status === 401) return;
      this.failure = failure;
      if (this.account === null) this.state = 'failed';
    }
  }

  /** Somebody has just signed in: goes on to where they wanted to be. */
  async entered(): Promise<void> {
    await this.look();
    if (this.state === 'in') router.go(takeReturn() ?? '/', { replace: true });
  }

  async signOut(): Promise<void> {
    await api.post('/api/sign-out');
    sessionStorage.clear();
    this.account = null;
    this.state = 'out';
    // What was on the screen must not be in memory for who comes next.
    location.assign('/');
  }

  #left(): void {
    this.account = null;
    this.state = 'out';
  }
}

/** Where to go after signing in: addresses of the app name things by their ids alone, so no content is kept by this. */
export function keepReturn(path: string): void {
  if (path !== '/' && !path.startsWith('/sign-in')) sessionStorage.setItem(RETURN, path);
}

/** Where {@link takeReturn} would lead, for whoever is sent to a provider: they come back to a page that is loaded anew. */
export function returnPath(): string {
  return takeReturn() ?? '/';
}

export function takeReturn(): string | null {
  const path = sessionStorage.getItem(RETURN);
  sessionStorage.removeItem(RETURN);
  return path !== null && /^\/(?![/\\])/.test(path) ? path : null;
}

export const session = new Session();
