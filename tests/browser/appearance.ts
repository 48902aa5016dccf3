// The looks that every page must have: light, dark and high contrast, at a desk and on the smallest phone, in each language. A page is
// told as a browser tells it, by what its person prefers.

import type { Page } from '@playwright/test';

export const looks = ['light', 'dark', 'contrast'] as const;
export type Look = (typeof looks)[number];

export const screens = { desktop: { width: 1280, height: 800 }, phone: { width: 360, height: 740 } } as const;
export type Screen = keyof typeof screens;

export const languages = ['en-GB', 'de-DE'] as const;
export type Language = (typeof languages)[number];

export async function wear(page: Page, look: Look, screen: Screen): Promise<void> {
  await page.setViewportSize(screens[screen]);
  await page.emulateMedia({
    colorScheme: look === 'dark' ? 'dark' : 'light',
    contrast: look === 'contrast' ? 'more' : 'no-preference',
    // What still moves has no colour yet.
    reducedMotion: 'reduce',
  });
}
