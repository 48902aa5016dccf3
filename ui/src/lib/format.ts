/** Numbers as people read them, in their language. Money stays the decimal string that the Lab gave: it is never a float. */
import { language, m } from './i18n.svelte';

// What is shown of an amount at least; a price per answer is often far below a cent.
const DECIMALS = 2;

/** Credits, exactly: `0.000123` stays `$0.000123`, `12.5` becomes `$12.50`. One credit is one US dollar. */
export function money(amount: string, most = 9): string {
  const found = /^(-?)(\d+)(?:\.(\d+))?$/.exec(amount);
  if (!found) return amount;
  const [, sign = '', whole = '0', fraction = ''] = found;
  const kept = shorten(fraction, most).padEnd(DECIMALS, '0');
  const separator = new Intl.NumberFormat(language.current).formatToParts(0.5).find((part) => part.type === 'decimal')?.value ?? '.';
  const grouped = new Intl.NumberFormat(language.current).format(BigInt(whole));
  const text = `${grouped}${separator}${kept}`;
  return language.current === 'de' ? `${sign}${text} $` : `${sign}$${text}`;
}

// Cut, not rounded: an amount that is shown shortened is never more than it is.
function shorten(fraction: string, most: number): string {
  return fraction.slice(0, Math.max(most, DECIMALS)).replace(/0+$/, '');
}

/** Billionths of a credit as the decimal string that {@link money} takes. */
export function fromNano(nano: number): string {
  const all = BigInt(nano);
  const digits = (all < 0n ? -all : all).toString().padStart(10, '0');
  const fraction = digits.slice(-9).replace(/0+$/, '');
  return `${all < 0n ? '-' : ''}${digits.slice(0, -9)}${fraction && `.${fraction}`}`;
}

export function count(value: number): string {
  return new Intl.NumberFormat(language.current).format(value);
}

/** `1,234` up to ten thousand, then `12.3k`. */
export function tokens(value: number): string {
  if (value < 10_000) return count(value);
  return new Intl.NumberFormat(language.current, { notation: 'compact', maximumFractionDigits: 1 }).format(value);
}

export function rate(perSecond: number): string {
  const digits = perSecond < 10 ? 1 : 0;
  return new Intl.NumberFormat(language.current, { maximumFractionDigits: digits }).format(perSecond);
}

export function percent(part: number): string {
  return new Intl.NumberFormat(language.current, { style: 'percent', maximumFractionDigits: 0 }).format(part);
}

/** `320 ms`, `4.2 s`, `38 s`, `2 min 5 s`, `3 h 10 min`. */
export function duration(ms: number): string {
  const number = (value: number, digits = 0): string => new Intl.NumberFormat(language.current, { maximumFractionDigits: digits }).format(value);
  if (ms < 1_000) return `${number(ms)} ms`;
  if (ms < 9_950) return `${number(ms / 1_000, 1)} s`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 === 0 ? `${minutes} min` : `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`;
}

const UNITS = ['B', 'KB', 'MB', 'GB', 'TB'];

export function bytes(value: number): string {
  let size = value;
  let unit = 0;
  while (size >= 1_000 && unit < UNITS.length - 1) {
    size /= 1_000;
    unit += 1;
  }
  const digits = unit === 0 || size >= 100 ? 0 : 1;
  return `${new Intl.NumberFormat(language.current, { maximumFractionDigits: digits }).format(size)} ${UNITS[unit]}`;
}

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 31_536_000_000],
  ['month', 2_592_000_000],
  ['week', 604_800_000],
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
];

/** `just now`, `5 minutes ago`, `yesterday`, `in 3 days`. */
export function relative(at: number, now = Date.now()): string {
  const off = at - now;
  for (const [unit, length] of STEPS) {
    if (Math.abs(off) >= length) return new Intl.RelativeTimeFormat(language.current, { numeric: 'auto' }).format(Math.trunc(off / length), unit);
  }
  return m.kit_just_now();
}

export function dateTime(at: number): string {
  return new Intl.DateTimeFormat(language.current, { dateStyle: 'medium', timeStyle: 'short' }).format(at);
}

export function date(at: number): string {
  return new Intl.DateTimeFormat(language.current, { dateStyle: 'medium' }).format(at);
}

export function time(at: number): string {
  return new Intl.DateTimeFormat(language.current, { timeStyle: 'short' }).format(at);
}
