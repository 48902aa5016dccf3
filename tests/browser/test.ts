// Every test has the world, a page in a browser of its own, and a watch over it. A worker's tests share a world and an owner with a
// workstation; whoever needs people of their own makes them.

import { type BrowserContextOptions, test as plain } from '@playwright/test';
import { type Hand, mouse } from './hands.ts';
import { Watch } from './watch.ts';
import { Road } from './world/road.ts';
import type { Person } from './world/person.ts';
import { World } from './world.ts';

export { expect } from '@playwright/test';

interface OfWorker {
  world: World;
  /** Somebody with a workstation that is here, and credits. */
  owner: Person;
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
  owner: [
    async ({ world }, use) => {
      const owner = world.newPerson('owner');
      await owner.newWorkstation('tower');
      await owner.giveCredits(100);
      await use(owner);
    },
    { scope: 'worker', timeout: 120_000 },
  ],
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
