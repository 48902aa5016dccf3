/** Where something floats beside what it belongs to: on the wanted side where there is room, else on the other, always inside the window. */
export type Box = { left: number; top: number; right: number; bottom: number };
type Wanted = { side: 'top' | 'bottom'; align: 'start' | 'end' | 'center' };

const GAP = 4;
const MARGIN = 8;

export function place(anchor: Box, size: { width: number; height: number }, room: { width: number; height: number }, { side, align }: Wanted): { left: number; top: number } {
  const below = anchor.bottom + GAP;
  const above = anchor.top - GAP - size.height;
  const fitsBelow = below + size.height <= room.height - MARGIN;
  const fitsAbove = above >= MARGIN;
  const top = side === 'bottom' ? (fitsBelow || !fitsAbove ? below : above) : fitsAbove || !fitsBelow ? above : below;
  const left = align === 'start' ? anchor.left : align === 'end' ? anchor.right - size.width : (anchor.left + anchor.right - size.width) / 2;
  const within = (value: number, length: number, most: number): number => Math.max(MARGIN, Math.min(value, most - length - MARGIN));
  return { left: within(left, size.width, room.width), top: within(top, size.height, room.height) };
}

export function placeBeside(floating: HTMLElement, anchor: Element, wanted: Wanted): void {
  const { left, top } = place(anchor.getBoundingClientRect(), { width: floating.offsetWidth, height: floating.offsetHeight }, { width: innerWidth, height: innerHeight }, wanted);
  floating.style.left = `${left}px`;
  floating.style.top = `${top}px`;
}
