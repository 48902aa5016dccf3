/**
 * Signing in, as every page that needs it does it: the journey to a provider, links by mail, and word between the tabs of one browser,
 * so that the tab that waits goes on by itself when a link was opened in another.
 */
import { api, onProofWanted, type Schemas } from './api';

export type Purpose = NonNullable<Schemas['Start']['purpose']>;

/** A link that may be on its way. */
export type Asked = { address: string; code: string; goodUntil: number };

export async function askForLink(address: string, purpose: Purpose, now = Date.now()): Promise<Asked> {
  const { code, expires_in } = await api.post('/api/sign-in/mail', { body: { address, purpose } });
  return { address, code: `${code.slice(0, 4)}-${code.slice(4)}`, goodUntil: now + expires_in * 1_000 };
}

/** Sends this browser to a provider. It comes back to `returnTo`, or to `/sign-in?error=`. */
export async function goToProvider(provider: string, purpose: Purpose, returnTo: string): Promise<void> {
  location.assign(await wayTo(provider, purpose, returnTo));
}

/** Sends another tab to a provider; here somebody waits. Comes to `false` where the browser opens no tab. */
export async function openProvider(provider: string, purpose: Purpose): Promise<boolean> {
  // Opened at once, because a browser lets a page do so only while somebody presses something.
  const tab = window.open('', '_blank');
  if (!tab) return false;
  try {
    tab.location.href = await wayTo(provider, purpose, '/sign-in/done');
    return true;
  } catch (error) {
    tab.close();
    throw error;
  }
}

async function wayTo(provider: string, purpose: Purpose, returnTo: string): Promise<string> {
  const { location: to } = await api.post('/api/sign-in/start', { body: { provider, purpose, return_to: returnTo } });
  return to;
}

const NAMES: Record<string, string> = { apple: 'Apple', github: 'GitHub', gitlab: 'GitLab', google: 'Google', microsoft: 'Microsoft' };

/** What people call a provider; operators name them as they like. */
export function providerName(name: string): string {
  return NAMES[name.toLowerCase()] ?? name.charAt(0).toUpperCase() + name.slice(1);
}

/** The token of a link's address, which stands behind `#link=` because no scanner sends that anywhere. */
export function linkIn(hash: string): string | null {
  const found = /^#link=([\w-]{1,64})$/.exec(hash);
  return found?.[1] ?? null;
}

type Word = 'proved' | 'waiting';
// How long another tab has to say that it was waiting.
const ANSWER_MS = 250;

/** Word between the tabs of this browser; of who or what, nothing. */
class Tabs {
  #channel = typeof BroadcastChannel === 'undefined' ? undefined : new BroadcastChannel('1k4.sign-in');

  /** Somebody has just proved who they are. Tells whether another tab waited for it. */
  async tell(): Promise<boolean> {
    const channel = this.#channel;
    if (!channel) return false;
    return new Promise((resolve) => {
      const done = (heard: boolean): void => {
        clearTimeout(timer);
        channel.removeEventListener('message', hear);
        resolve(heard);
      };
      const hear = (event: MessageEvent<Word>): void => {
        if (event.data === 'waiting') done(true);
      };
      const timer = setTimeout(() => done(false), ANSWER_MS);
      channel.addEventListener('message', hear);
      channel.postMessage('proved' satisfies Word);
    });
  }

  /** Calls `then` once another tab has told. Returns what ends the waiting. */
  wait(then: () => void): () => void {
    const channel = this.#channel;
    const hear = (event: MessageEvent<Word>): void => {
      if (event.data !== 'proved') return;
      channel?.postMessage('waiting' satisfies Word);
      then();
    };
    channel?.addEventListener('message', hear);
    return () => channel?.removeEventListener('message', hear);
  }
}

export const tabs = new Tabs();

/** Asks for a fresh sign-in before what cannot be taken back, and then lets it go on. */
class Proof {
  wanted = $state(false);
  #answers: ((proved: boolean) => void)[] = [];

  constructor() {
    onProofWanted(() => this.ask());
  }

  ask(): Promise<boolean> {
    this.wanted = true;
    return new Promise((resolve) => this.#answers.push(resolve));
  }

  answer(proved: boolean): void {
    this.wanted = false;
    const waiting = this.#answers;
    this.#answers = [];
    for (const resolve of waiting) resolve(proved);
  }
}

export const proof = new Proof();
