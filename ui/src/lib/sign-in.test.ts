import { describe, expect, it } from 'vitest';
import { linkIn, providerName } from './sign-in.svelte';

describe('linkIn', () => {
  it('finds the token behind the sign that no scanner sends', () => {
    expect(linkIn('#link=VW1BQ30EUJISIyjNQIH4wgvXKZtlKVR68odRurQzuqw')).toBe('VW1BQ30EUJISIyjNQIH4wgvXKZtlKVR68odRurQzuqw');
  });
  it.each(['', '#', '#link=', '#main', '#link=a b', `#link=${'a'.repeat(65)}`, '#x=1&link=abc'])('takes nothing else for one: %s', (hash) => {
    expect(linkIn(hash)).toBeNull();
  });
});

describe('providerName', () => {
  it('writes known names as their owners do, and others as the operator does', () => {
    expect(providerName('github')).toBe('GitHub');
    expect(providerName('company-sso')).toBe('Company-sso');
  });
});
