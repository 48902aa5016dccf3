// Row 11: what a model says is anybody's. Whatever it is, nothing of it runs, nothing is fetched, and the page lives on.

import { Chat } from '../chat.ts';
import { expect, test } from '../test.ts';

const BEACON = 'https://attacker.example/beacon.png';

const HOSTILE: Record<string, string> = {
  'a script': '<script>window.__owned = 1</script>\n\n<img src=x onerror="window.__owned = 1">\n\nafter',
  'links that run': '[press](javascript:window.__owned=1) [press](data:text/html,<script>window.__owned=1</script>) [press](vbscript:x)\n\nafter',
  'an SVG that runs': '<svg onload="window.__owned = 1"><script>window.__owned = 1</script></svg>\n\n<math><mtext><img src=x onerror=window.__owned=1></mtext></math>\n\nafter',
  'an image that tells on its reader': `![you](${BEACON})\n\n<img src="${BEACON}">\n\n<div style="background:url(${BEACON})">x</div>\n\nafter`,
  'a frame and a form': `<iframe src="${BEACON}"></iframe><form action="${BEACON}"><button>Sign in</button></form><base href="${BEACON}">\n\nafter`,
  'a diagram that runs': '```mermaid\ngraph TD\n  A["<img src=x onerror=window.__owned=1>"] --> B\n  click B "javascript:window.__owned=1"\n```\n\nafter',
  'a formula that leads away': `$\\href{javascript:window.__owned=1}{x}$ $\\includegraphics{${BEACON}}$\n\nafter`,
  'text that turns around': 'Pay \u202Egpj.exe\u202C now \u2066\u2067and\u2069 here\u200B\n\nafter',
  // The Lab itself keeps no more than some 800 kB of an answer that comes in small pieces.
  'a line of 700 kB': `${'a'.repeat(700_000)}\n\nafter`,
  'a huge table': `${['|h'.repeat(40), '|-'.repeat(40), ...Array.from({ length: 1_500 }, () => '|x'.repeat(40))].join('|\n')}|\n\nafter`,
  'brackets without an end': `${'['.repeat(20_000)}${'*_'.repeat(20_000)}${'> '.repeat(2_000)}\n\nafter`,
};

test.describe('a model that means harm', () => {
  for (const [what, words] of Object.entries(HOSTILE)) {
    test(what, async ({ page, world, owner, hand }) => {
      await world.ollama.plays('test-fast', [{ say: words }]);
      const talk = await owner.newConversation('local/test-fast');
      await talk.ask('Say it');
      let asked = 0;
      page.on('dialog', (dialog) => void dialog.dismiss().then(() => (asked += 1)));
      await owner.open(page, `/chat/${talk.id}`);
      const chat = new Chat(page, hand);
      const answer = await chat.whole();
      await expect(answer.getByText('after', { exact: true })).toBeVisible();
      for (const link of await answer.getByRole('link').all()) {
        await expect(link).toHaveAttribute('href', /^https:/);
        await expect(link).toHaveAttribute('rel', /noopener/);
      }
      await expect(answer.locator('script, iframe, form, base, object, embed, img[src^="http"]')).toHaveCount(0);
      expect(await page.evaluate(() => '__owned' in window), 'nothing ran').toBe(false);
      expect(asked, 'nobody was asked anything').toBe(0);
      // And the page is alive: something can be written and asked.
      await world.ollama.plays('test-fast', [{ say: words }, { say: 'Still here.' }]);
      await chat.ask('And now?');
      await expect((await chat.whole()).getByText('Still here.')).toBeVisible();
    });
  }
});
