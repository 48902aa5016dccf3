// axe on a page as it stands: WCAG 2.2 AA and the best practices of the people who made it.

import { AxeBuilder } from '@axe-core/playwright';
import { expect, type Page } from '@playwright/test';

export async function isAccessible(page: Page, what: string): Promise<void> {
  const { violations } = await new AxeBuilder({ page })
    .withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'])
    .analyze();
  const told = violations.flatMap((one) => one.nodes.map((node) => `${one.id}: ${node.target.join(' ')}: ${node.failureSummary}`));
  expect.soft(told, what).toEqual([]);
}

/** Nobody has to scroll sideways to read (WCAG 1.4.10): only a piece of code, a table or a board may be wider than its place. */
export async function fits(page: Page, what: string): Promise<void> {
  const wide = await page.evaluate(() => {
    const scrolls = (element: Element) => ['auto', 'scroll', 'visible'].includes(getComputedStyle(element).overflowX);
    const isPage = (element: Element) => element.clientHeight > innerHeight * 0.5 && element.querySelector('h1, main') !== null;
    const pages = [...document.querySelectorAll('*')].filter((element) => scrolls(element) && isPage(element));
    return pages.filter((element) => element.scrollWidth > element.clientWidth + 1).map((element) => `${element.tagName} by ${element.scrollWidth - element.clientWidth} px`);
  });
  expect.soft(wide, `${what}: wider than the screen`).toEqual([]);
}

/** The page has been drawn: its heading is there and nothing is loading any more. */
export async function isDrawn(page: Page): Promise<void> {
  await expect(page.getByRole('heading', { level: 1 }).first()).toBeAttached();
  await expect(page.getByRole('status', { name: /^(loading|wird geladen)/i })).toHaveCount(0);
}
