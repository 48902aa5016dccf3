import { ApiFailure } from '../../lib/api';
import { m } from '../../lib/i18n.svelte';

// What the Lab says with a code, in the reader's language. `denied` comes only with the way back from a provider.
const SAID: Record<string, { cause: () => string; next: () => string }> = {
  denied: { cause: () => m.sign_in_denied(), next: () => m.sign_in_denied_next() },
  sign_in_over: { cause: () => m.sign_in_over(), next: () => m.sign_in_over_next() },
  registration_closed: { cause: () => m.sign_in_closed(), next: () => m.sign_in_closed_next() },
  email_unverified: { cause: () => m.sign_in_unverified(), next: () => m.sign_in_unverified_next() },
  another_account: { cause: () => m.sign_in_another_account(), next: () => m.sign_in_another_account_next() },
  provider_failed: { cause: () => m.sign_in_provider_failed(), next: () => m.sign_in_provider_failed_next() },
  cannot_step_up: { cause: () => m.sign_in_cannot_step_up(), next: () => m.sign_in_cannot_step_up_next() },
  wrong_code: { cause: () => m.sign_in_wrong_code(), next: () => m.sign_in_wrong_code_next() },
  signed_out: { cause: () => m.sign_in_signed_out(), next: () => m.sign_in_signed_out_next() },
  step_up_required: { cause: () => m.sign_in_not_fresh(), next: () => m.sign_in_not_fresh_next() },
};

/** A failure of signing in with its cause and its next step. */
export function worded(failure: ApiFailure): ApiFailure {
  if (failure.code === 'too_many_requests') return again(failure, m.sign_in_locked(), lockedNext(failure.retryAfterS));
  if (failure.code === 'invalid_field') return again(failure, m.sign_in_bad_address(), m.sign_in_bad_address_next());
  const said = SAID[failure.code];
  return said ? again(failure, said.cause(), said.next()) : failure;
}

/** What the address `/sign-in?error=` stands for; `null` without one. */
export function ofCode(code: string | null): ApiFailure | null {
  if (code === null) return null;
  return worded(new ApiFailure(400, code, m.sign_in_failed(), m.sign_in_failed_next()));
}

function again(failure: ApiFailure, cause: string, next: string): ApiFailure {
  return new ApiFailure(failure.status, failure.code, cause, next, failure.requestId, failure.retryAfterS);
}

function lockedNext(seconds: number | undefined): string {
  const minutes = Math.max(1, Math.ceil((seconds ?? 900) / 60));
  return minutes === 1 ? m.sign_in_locked_next_one() : m.sign_in_locked_next({ minutes });
}
