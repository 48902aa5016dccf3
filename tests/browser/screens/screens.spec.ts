// Pictures of every main screen, from real data, light and dark, at a desk and on a phone: docs/screens. Run by `cargo xtask screens`.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser } from '@playwright/test';
import { type Screen, wear } from '../appearance.ts';
import { isDrawn } from '../looks.ts';
import type { Scenes } from '../scenes.ts';
import { expect, test } from '../test.ts';

const FOLDER = join(import.meta.dirname, '../../../docs/screens');

interface Picture {
  name: string;
  at: (scenes: Scenes) => string;
  /** What must be there before it is taken. */
  shows: string | RegExp;
  /** Without anybody signed in. */
  stranger?: boolean;
}

const PICTURES: Picture[] = [
  { name: 'sign-in', at: () => '/sign-in', shows: 'Send me a link', stranger: true },
  { name: 'chat', at: ({ conversation }) => `/chat/${conversation}`, shows: /Weigh a cushion wet/ },
  { name: 'chat-new', at: () => '/chat', shows: 'What is on your mind?' },
  { name: 'start', at: () => '/', shows: 'tower' },
  { name: 'welcome', at: () => '/', shows: '1K4', stranger: true },
  { name: 'approval', at: ({ agentRun }) => `/runs/${agentRun}`, shows: 'Allow: Write file' },
  { name: 'agent-at-work', at: ({ workedRun }) => `/runs/${workedRun}`, shows: /put a task on the board/ },
  { name: 'agents', at: () => '/agents', shows: /haircap/ },
  { name: 'projects', at: () => '/projects', shows: 'Field guide to mosses' },
  { name: 'files', at: ({ project }) => `/projects/${project}/files`, shows: 'outline.md' },
  { name: 'file', at: ({ project, file }) => `/projects/${project}/files/${file}`, shows: /Field guide to mosses/ },
  { name: 'board', at: ({ project }) => `/projects/${project}/board`, shows: 'Sort the sites by altitude' },
  { name: 'log', at: ({ project }) => `/projects/${project}/log`, shows: /species\/polytrichum/ },
  { name: 'devices', at: () => '/devices', shows: 'tower' },
  { name: 'device', at: ({ device }) => `/devices/${device}`, shows: /llama3\.2/ },
  { name: 'keys', at: () => '/keys', shows: 'nightly report' },
  { name: 'usage', at: () => '/usage', shows: 'Usage' },
  { name: 'account', at: () => '/account', shows: 'Ways of signing in' },
  { name: 'account-data', at: () => '/account/data', shows: 'Download everything' },
];

for (const picture of PICTURES) {
  test(picture.name, async ({ page, owner, browser, scenes }) => {
    const place = picture.at(scenes);
    for (const screen of ['desktop', 'phone'] satisfies Screen[]) {
      for (const look of ['light', 'dark'] as const) {
        await wear(page, look, screen);
        if (picture.stranger) await page.goto(place);
        else await owner.open(page, place);
        await isDrawn(page);
        await expect(page.getByText(picture.shows).filter({ visible: true }).first()).toBeVisible();
        await keep(browser, `${picture.name}-${screen}-${look}`, await page.screenshot({ animations: 'disabled', caret: 'hide' }));
      }
    }
  });
}

/** Writes a picture as WebP, which takes a third of the room; Chromium makes it out of what it took. */
async function keep(browser: Browser, name: string, png: Buffer): Promise<void> {
  const studio = await browser.newPage();
  const webp = await studio.evaluate(async (data) => {
    const image = new Image();
    image.src = `data:image/png;base64,${data}`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height);
    canvas.getContext('2d')?.drawImage(image, 0, 0);
    const blob = await canvas.convertToBlob({ type: 'image/webp', quality: 0.85 });
    return [...new Uint8Array(await blob.arrayBuffer())];
  }, png.toString('base64'));
  await studio.close();
  mkdirSync(FOLDER, { recursive: true });
  writeFileSync(join(FOLDER, `${name}.webp`), Buffer.from(webp));
}
