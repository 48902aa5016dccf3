import { expect, test } from 'vitest';
import { targetsOf } from './targets';

test('targets that need a text need it', () => {
  expect(targetsOf('any', 'x')).toEqual({ type: 'any' });
  expect(targetsOf('exactly', ' docs/a.md ')).toEqual({ type: 'exactly', target: 'docs/a.md' });
  expect(targetsOf('matching', 'docs/**')).toEqual({ type: 'matching', pattern: 'docs/**' });
  expect(targetsOf('matching', '  ')).toBeNull();
});
