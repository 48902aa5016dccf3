import type { Schemas } from '../../lib/api';

/** Tokens of the answer a second, once it had begun; `null` where too little is known for an honest number. */
export function speed(use: Pick<Schemas['Use'], 'output_tokens' | 'first_token_ms' | 'total_ms'>): number | null {
  const { output_tokens: made, first_token_ms: first, total_ms: total } = use;
  if (made == null || made < 2 || first == null) return null;
  const seconds = (total - first) / 1_000;
  // What came in one piece says nothing about how fast it was made.
  return seconds < 0.05 ? null : (made - 1) / seconds;
}
