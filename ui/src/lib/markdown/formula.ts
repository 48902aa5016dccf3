/** Sets formulas as MathML, which browsers draw themselves: no fonts and no styles are fetched for it. Fetched with the first formula. */
import katex from 'katex';

export function typeset(place: HTMLElement, formula: string, block: boolean): void {
  try {
    katex.render(formula, place, { output: 'mathml', displayMode: block, throwOnError: true, trust: false, strict: 'ignore', maxExpand: 200, maxSize: 20 });
  } catch {
    // Half of a formula, or no formula: its text says more than an error.
    place.textContent = formula;
    place.classList.add('unset');
  }
}
