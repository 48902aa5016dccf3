/** What was done, said in passing. What went wrong and needs a person stays where it happened, as a Notice. */
export type Toast = { id: number; text: string; tone: 'good' | 'bad' | 'plain'; action?: { label: string; run: () => void } };

// Long enough to read a sentence and to reach the button beside it.
const SHOWN_MS = 6_000;

class Toasts {
  list = $state<Toast[]>([]);
  #next = 0;

  show(text: string, more: Partial<Pick<Toast, 'tone' | 'action'>> = {}): void {
    const toast: Toast = { id: this.#next++, text, tone: 'plain', ...more };
    this.list = [...this.list.slice(-2), toast];
    setTimeout(() => this.dismiss(toast.id), SHOWN_MS);
  }

  dismiss(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id);
  }
}

export const toasts = new Toasts();
