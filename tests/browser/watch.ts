// What must not happen in any test, whatever it is about: a rule of the content security policy broken, a request to anybody but the
// Lab, an error that nobody caught, a cookie that is not the session's, a word of somebody's in storage.

import { type BrowserContext, expect } from '@playwright/test';

/** The session's cookie, and those of somebody on the way in. */
const COOKIES = ['__Host-1k4s', '__Host-1k4a', '__Host-1k4m'];
/** What pages may keep in the browser: preferences, the language, where to go after signing in. */
const KEPT = /^(1k4\.(theme|density|shortcuts|widths|sidebar|models|consent|return|drafts)|PARAGLIDE_LOCALE)$/;

export class Watch {
  readonly violations: string[] = [];
  readonly strangers: string[] = [];
  readonly errors: string[] = [];

  private constructor(
    private readonly context: BrowserContext,
    private readonly origin: string,
  ) {}

  static async over(context: BrowserContext, origin: string): Promise<Watch> {
    const watch = new Watch(context, origin);
    await context.exposeFunction('__violation', (violation: string) => watch.violations.push(violation));
    await context.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (event) => {
        const tell = (globalThis as unknown as { __violation: (text: string) => void }).__violation;
        tell(`${event.effectiveDirective}: ${event.blockedURI} at ${event.sourceFile}:${event.lineNumber} on ${location.pathname}`);
      });
    });
    context.on('request', (request) => {
      const url = new URL(request.url());
      if (!['data:', 'blob:', 'about:'].includes(url.protocol) && url.origin !== origin) watch.strangers.push(request.url());
    });
    context.on('weberror', (error) => watch.errors.push(String(error.error())));
    context.on('console', (message) => {
      // Chromium reports every answer of 4xx so; pages deal with those.
      if (message.type() === 'error' && !/Failed to load resource/.test(message.text())) watch.errors.push(message.text());
    });
    return watch;
  }

  /** Nothing of the kind happened so far. */
  async isClean(): Promise<void> {
    expect.soft(this.violations, 'violations of the content security policy').toEqual([]);
    expect.soft(this.strangers, 'requests to somebody else').toEqual([]);
    expect.soft(this.errors, 'errors that nobody caught').toEqual([]);
    const cookies = await this.context.cookies();
    expect.soft(cookies.map((cookie) => cookie.name).filter((name) => !COOKIES.includes(name)), 'cookies').toEqual([]);
    const { origins } = await this.context.storageState();
    const kept = origins.flatMap(({ localStorage }) => localStorage.map(({ name }) => name));
    expect.soft(kept.filter((name) => !KEPT.test(name)), 'what is kept in the browser').toEqual([]);
    expect(origins.every(({ origin }) => origin === this.origin)).toBe(true);
  }
}
