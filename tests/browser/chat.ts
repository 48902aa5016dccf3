// The chat as a person uses it, whichever hand they have.

import { expect, type Locator, type Page } from '@playwright/test';
import type { Hand } from './hands.ts';

export class Chat {
  readonly answers: Locator;
  readonly questions: Locator;

  constructor(
    private readonly page: Page,
    private readonly hand: Hand,
  ) {
    this.answers = page.getByRole('article', { name: 'Answer' });
    this.questions = page.getByRole('article', { name: 'You' });
  }

  get field(): Locator {
    return this.page.getByRole('textbox', { name: 'Message', exact: true });
  }

  get stopButton(): Locator {
    return this.page.getByRole('button', { name: 'Stop', exact: true });
  }

  /** Chooses a model out of the picker, by its whole name or what is shown of it. */
  async pick(model: string): Promise<void> {
    await this.hand.press(this.page.getByRole('form', { name: 'Write a message' }).getByRole('button', { name: /^Choose a model/ }));
    const dialog = this.page.getByRole('dialog');
    await this.hand.write(dialog.getByRole('combobox'), model);
    await this.hand.press(dialog.getByRole('option').filter({ hasText: model }).first());
    await expect(dialog).toHaveCount(0);
  }

  async ask(words: string): Promise<void> {
    await this.hand.write(this.field, words);
    await this.hand.press(this.page.getByRole('button', { name: 'Send', exact: true }));
    await expect(this.questions.filter({ hasText: words })).toBeVisible();
  }

  /** The last answer, once it is whole. */
  async whole(): Promise<Locator> {
    const answer = this.answers.last();
    await expect(answer.getByRole('button', { name: 'Copy answer' })).toBeVisible();
    return answer;
  }
}
