import { describe, expect, it } from 'vitest';
import { ApiFailure } from '../../lib/api';
import { ofCode, worded } from './failures';

describe('worded', () => {
  it('says how long a lock-out lasts', () => {
    const locked = new ApiFailure(429, 'too_many_requests', 'too many attempts from this address', '', 'r1', 661);
    expect(worded(locked).next).toContain('12 minutes');
    expect(worded(locked).requestId).toBe('r1');
  });
  it('leaves what it has no better words for', () => {
    const other = new ApiFailure(500, 'internal', 'the lab failed to do this', '');
    expect(worded(other)).toBe(other);
  });
});

describe('ofCode', () => {
  it('is nothing without a code, and never repeats one', () => {
    expect(ofCode(null)).toBeNull();
    expect(ofCode('<b>made up</b>')?.message).not.toContain('made up');
    expect(ofCode('denied')?.next).not.toBe('');
  });
});
