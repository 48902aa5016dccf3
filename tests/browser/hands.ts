// How a person uses a page: with a mouse, with the keyboard alone, or with a finger on a phone. A journey is told once, to any hand.

import { type BrowserContextOptions, expect, type Locator, type Page } from '@playwright/test';

export interface Hand {
  readonly name: string;
  /** The screen and what it is touched with. */
  readonly device: BrowserContextOptions;
  press(target: Locator): Promise<void>;
  /** Into a field, in place of what is there. */
  write(target: Locator, text: string): Promise<void>;
  /** Out of a list of the browser's own. */
  choose(target: Locator, label: string): Promise<void>;
  /** To another page of the app, by its name in the navigation. */
  go(page: Page, name: string | RegExp): Promise<void>;
}

const DESKTOP = { viewport: { width: 1280, height: 800 } };
const PHONE = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 };

class Mouse implements Hand {
  readonly name: string = 'mouse';
  readonly device: BrowserContextOptions = DESKTOP;

  async press(target: Locator): Promise<void> {
    await target.click();
  }

  async write(target: Locator, text: string): Promise<void> {
    await this.press(target);
    await target.fill(text);
  }

  async choose(target: Locator, label: string): Promise<void> {
    await target.selectOption({ label });
  }

  async go(page: Page, name: string | RegExp): Promise<void> {
    await this.press(page.getByRole('navigation').getByRole('link', { name, exact: true }));
  }
}

class Finger extends Mouse {
  override readonly name = 'finger';
  override readonly device = PHONE;

  override async press(target: Locator): Promise<void> {
    // A finger is 24 px wide at least, wherever it points (WCAG 2.5.8), and nothing lies outside of its screen.
    await target.scrollIntoViewIfNeeded();
    const box = await target.boundingBox();
    expect(box, 'a target is on the screen').not.toBeNull();
    if (box) expect(box.x >= -1 && box.x + box.width <= PHONE.viewport.width + 1, `${target} is within 360 px`).toBe(true);
    await target.tap();
  }

  override async go(page: Page, name: string | RegExp): Promise<void> {
    await this.press(page.getByRole('button', { name: 'Open navigation' }));
    await super.go(page, name);
  }
}

/** No page is so long that more steps are needed to get anywhere in it. */
const MOST_STEPS = 250;
const MOST_ARROWS = 60;
/** Things inside of one stop of the Tab key, which arrows go through. */
const BY_ARROWS = new Set(['menuitem', 'menuitemradio', 'menuitemcheckbox', 'option', 'tab', 'radio', 'treeitem']);

class Keyboard implements Hand {
  readonly name = 'keyboard';
  readonly device = DESKTOP;

  async press(target: Locator): Promise<void> {
    await this.reach(target);
    const role = await roleOf(target);
    await target.page().keyboard.press(role === 'checkbox' || role === 'switch' || role === 'radio' ? 'Space' : 'Enter');
  }

  async write(target: Locator, text: string): Promise<void> {
    await this.reach(target);
    const { keyboard } = target.page();
    await keyboard.press('Control+a');
    await keyboard.insertText(text);
  }

  async choose(target: Locator, label: string): Promise<void> {
    await this.reach(target);
    // A list of the browser's own goes to what is typed.
    await target.page().keyboard.type(label, { delay: 5 });
    await expect(target.locator('option:checked')).toHaveText(label);
  }

  async go(page: Page, name: string | RegExp): Promise<void> {
    await this.press(page.getByRole('navigation').getByRole('link', { name, exact: true }));
  }

  /** Gets there by keys alone, and sees where it is. */
  private async reach(target: Locator): Promise<void> {
    await expect(target).toBeVisible();
    const { keyboard } = target.page();
    const byArrows = BY_ARROWS.has(await roleOf(target));
    // Tab goes to the thing itself, or into the group that arrows go through.
    for (let step = 0; step < MOST_STEPS; step += 1) {
      if ((await isThere(target)) || (byArrows && (await isInGroup(target)))) break;
      await keyboard.press('Tab');
    }
    for (const arrow of byArrows ? ['ArrowDown', 'ArrowRight'] : []) {
      for (let step = 0; step < MOST_ARROWS && !(await isThere(target)); step += 1) await keyboard.press(arrow);
    }
    expect(await isThere(target), `the keyboard reaches ${target}; it is at ${await whereabouts(target.page())}`).toBe(true);
  }
}

function roleOf(target: Locator): Promise<string> {
  return target.evaluate((element) => {
    const input = element instanceof HTMLInputElement ? element.type : '';
    return element.getAttribute('role') ?? input;
  });
}

function isThere(target: Locator): Promise<boolean> {
  return target.evaluate((element) => {
    const active = document.activeElement;
    return (
      element === active ||
      // Some lists keep the focus and mark where they are.
      (active?.getAttribute('aria-activedescendant') ?? '#') === element.id ||
      (element.hasAttribute('data-highlighted') && active !== document.body)
    );
  });
}

/** Whether the focus is somewhere in the list, the menu or the row of tabs that a thing is in. */
function isInGroup(target: Locator): Promise<boolean> {
  return target.evaluate((element) => {
    const group = element.closest('[role=tablist], [role=menu], [role=listbox], [role=radiogroup], [role=tree]');
    const active = document.activeElement;
    return group !== null && active !== null && (group.contains(active) || active.getAttribute('aria-controls') === group.id);
  });
}

function whereabouts(page: Page): Promise<string> {
  return page.evaluate(() => document.activeElement?.outerHTML.slice(0, 200) ?? 'nowhere');
}

export const mouse: Hand = new Mouse();
export const keyboard: Hand = new Keyboard();
export const finger: Hand = new Finger();
export const hands: Hand[] = [mouse, keyboard, finger];
