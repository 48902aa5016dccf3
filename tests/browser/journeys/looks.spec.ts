// Row 2 in short: every route in one of its twelve looks, another for each. `--full` goes through all of them.

import { languages, looks, type Screen, screens, wear } from '../appearance.ts';
import { fits, isAccessible, isDrawn } from '../looks.ts';
import { FOR_STRANGERS, placesOf, routes } from '../places.ts';
import { test } from '../test.ts';

for (const [number, language] of languages.entries()) {
  test.describe(language, () => {
    test.use({ locale: language });
    test('every route is for everybody', async ({ page, owner, scenes }) => {
      test.setTimeout(180_000);
      // Every other route in this language, the rest in the other one.
      for (const [at, route] of routes().entries()) {
        if (at % languages.length !== number) continue;
        const look = looks[at % looks.length] ?? 'light';
        const screen: Screen = Object.keys(screens)[Math.floor(at / 2) % 2] === 'phone' ? 'phone' : 'desktop';
        await wear(page, look, screen);
        const [place = route] = placesOf(route, scenes);
        if (FOR_STRANGERS.includes(route)) await page.goto(place);
        else await owner.open(page, place);
        await isDrawn(page);
        await fits(page, `${place} ${screen} ${language}`);
        await isAccessible(page, `${place} ${look} ${screen} ${language}`);
      }
    });
  });
}
