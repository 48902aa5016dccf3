import { expect, it } from 'vitest';
import { place } from './place';

const room = { width: 360, height: 600 };
const anchor = (left: number, top: number) => ({ left, top, right: left + 28, bottom: top + 28 });

it('floats beside its anchor, inside the window, on the side with room', () => {
  const size = { width: 180, height: 200 };
  expect(place(anchor(100, 100), size, room, { side: 'bottom', align: 'start' })).toEqual({ left: 100, top: 132 });
  expect(place(anchor(10, 100), size, room, { side: 'bottom', align: 'end' })).toEqual({ left: 8, top: 132 });
  expect(place(anchor(320, 560), size, room, { side: 'bottom', align: 'start' })).toEqual({ left: 172, top: 356 });
  expect(place(anchor(100, 20), size, room, { side: 'top', align: 'center' })).toEqual({ left: 24, top: 52 });
});
