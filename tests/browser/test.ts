// Every test has the world, a page in a browser of its own, and a watch over it. A worker's tests share a world and an owner with a
// workstation; whoever needs people of their own makes them.

import { type Browser, type BrowserContext, type BrowserContextOptions, type Page, test as plain } from '@playwright/test';
import { type Hand, hands, mouse } from './hands.ts';
import { furnish, type Scenes } from './scenes.ts';
import { Watch } from './watch.ts';
import { Road } from './world/road.ts';
import type { Person } from './world/person.ts';
import { World } from './world.ts';

export { expect } from '@playwright/test';

interface OfWorker {
  world: World;
  /** Somebody with a workstation that is here, and credits. */
  owner: Person;
  /** The owner's life with 1K4, made through the API. */
  scenes: Scenes;
}

interface OfTest {
  /** How the page is used, and so on which screen. */
  hand: Hand;
  /** Between the page and the Lab; it leads nowhere else. */
  road: Road;
  watch: Watch;
}

export const test = plain.extend<OfTest, OfWorker>({
  world: [
    async ({}, use) => {
      const world = await World.start();
      await use(world);
      await world.end();
    },
    { scope: 'worker', timeout: 120_000 },
  ],
  // The browser knows the Lab's certificate, and takes it as it would take one of a public authority.
  launchOptions: [
    async ({ launchOptions, world }, use) => {
      await use({ ...launchOptions, args: [...(launchOptions.args ?? []), ...world.lab.trust()] });
    },
    { scope: 'worker' },
  ],
  owner: [
    async ({ world }, use) => {
      const owner = world.newPerson('owner');
      await owner.newWorkstation('tower');
      await owner.giveCredits(100);
      await use(owner);
    },
    { scope: 'worker', timeout: 120_000 },
  ],
  scenes: [async ({ world, owner }, use) => use(await furnish(world, owner)), { scope: 'worker', timeout: 120_000 }],
  hand: [mouse, { option: true }],
  road: async ({}, use) => {
    const road = await Road.open();
    await use(road);
    await road.close();
  },
  contextOptions: async ({ contextOptions, hand, road }, use) => {
    // Chromium asks this machine directly unless it is told not to.
    const options: BrowserContextOptions = { ...contextOptions, ...hand.device, proxy: { server: road.url, bypass: '<-loopback>' } };
    await use(options);
  },
  baseURL: ({ world }, use) => use(world.origin),
  watch: [
    async ({ context, world }, use) => {
      const watch = await Watch.over(context, world.origin);
      await use(watch);
      await watch.isClean();
    },
    { auto: true },
  ],
});

/** A journey that is gone three times: by mouse, by keys alone, and with a finger at 360 px. */
export function journey(title: string, go: (taken: Taken) => Promise<void>): void {
  for (const hand of hands) {
    test.describe(hand.name, () => {
      test.use({ hand });
      test(title, async ({ page, world, owner, road, context, browser, contextOptions }) => {
        await go({ page, world, owner, road, context, browser, contextOptions, hand });
      });
    });
  }
}

/** What there is to go a journey with. */
export interface Taken {
  page: Page;
  world: World;
  owner: Person;
  road: Road;
  context: BrowserContext;
  browser: Browser;
  /** For a second browser that is like the first. */
  contextOptions: BrowserContextOptions;
  hand: Hand;
}
