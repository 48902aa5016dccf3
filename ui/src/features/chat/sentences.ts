/** What was finished of a text since `from`, in whole sentences or lines, and where that ends. */
export function sentences(text: string, from: number): [string, number] {
  const rest = text.slice(from);
  let end = 0;
  for (const found of rest.matchAll(/[.!?。！？…]["»”)]*\s|\n/g)) end = found.index + found[0].length;
  return [rest.slice(0, end).replaceAll(/[*_`#>|]+/g, ' ').trim(), from + end];
}
