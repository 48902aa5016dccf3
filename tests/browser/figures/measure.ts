// Figures taken in the page itself, and how they are handed on: a line of JSON each, which `cargo xtask bench web` makes a table of.

import type { Page } from '@playwright/test';

export interface Figure {
  what: string;
  unit: string;
  figure: number;
  /** What it must be. */
  most?: number;
  least?: number;
}

export function report(figure: Figure): void {
  console.log(JSON.stringify({ figure }));
}

/** Smallest first. */
export function percentile(values: number[], share: number): number {
  const sorted = [...values].sort((one, other) => one - other);
  const at = Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1);
  return sorted[Math.max(0, at)] ?? Number.NaN;
}

export interface Smoothness {
  fps: number;
  longTasks: number;
  longest: number;
}

interface Counting {
  frames: number;
  began: number;
  tasks: number[];
  observer: PerformanceObserver;
  isOn: boolean;
}

/** Counts frames and long tasks from here on, until the returned function is called. */
export async function smoothness(page: Page): Promise<() => Promise<Smoothness>> {
  await page.evaluate(() => {
    const tasks: number[] = [];
    const observer = new PerformanceObserver((list) => list.getEntries().forEach((entry) => tasks.push(entry.duration)));
    observer.observe({ entryTypes: ['longtask'] });
    const counting: Counting = { frames: 0, began: performance.now(), tasks, observer, isOn: true };
    const count = () => {
      if (!counting.isOn) return;
      counting.frames += 1;
      requestAnimationFrame(count);
    };
    requestAnimationFrame(count);
    (globalThis as unknown as { __counting: Counting }).__counting = counting;
  });
  return () =>
    page.evaluate(() => {
      const counting = (globalThis as unknown as { __counting: Counting }).__counting;
      counting.isOn = false;
      counting.observer.takeRecords().forEach((entry) => counting.tasks.push(entry.duration));
      counting.observer.disconnect();
      const seconds = (performance.now() - counting.began) / 1000;
      return { fps: counting.frames / seconds, longTasks: counting.tasks.length, longest: Math.max(0, ...counting.tasks) };
    });
}
