// Row 2: every route, in every look, on both screens, in each language.

import { languages, looks, screens, wear } from '../appearance.ts';
import { fits, isAccessible, isDrawn } from '../looks.ts';
import { FOR_STRANGERS, placesOf, routes } from '../places.ts';
import { test } from '../test.ts';

for (const language of languages) {
  test.describe(language, () => {
    test.use({ locale: language });
    for (const route of routes()) {
      test(`${route} is for everybody`, async ({ page, owner, scenes }) => {
        for (const place of placesOf(route, scenes)) {
          if (FOR_STRANGERS.includes(route)) await page.goto(place);
          else await owner.open(page, place);
          for (const screen of Object.keys(screens) as (keyof typeof screens)[]) {
            for (const look of looks) {
              await wear(page, look, screen);
              await isDrawn(page);
              await fits(page, `${place} ${screen} ${language}`);
              await isAccessible(page, `${place} ${look} ${screen} ${language}`);
            }
          }
        }
      });
    }
  });
}
