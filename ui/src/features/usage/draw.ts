/** Draws a chart of days, its scale no smaller than `least`. Its own module, so that the library comes only when there is one to draw. */
import UPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';

export type Series = { label: string; values: (number | null)[]; colour: string };
export type Look = { text: string; line: string; font: string };

export function draw(on: HTMLElement, days: string[], series: Series[], look: Look, shape: 'bars' | 'lines', least: number, worded: (value: number) => string, dayWorded: (at: number) => string): UPlot {
  const axis = { stroke: look.text, font: look.font, grid: { stroke: look.line, width: 1 }, ticks: { show: false } };
  const bars = UPlot.paths.bars?.({ size: [0.7, 48], radius: 0.1 });
  const options: UPlot.Options = {
    width: Math.max(on.clientWidth, 200),
    height: 240,
    padding: [12, 8, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: false, range: [-0.6, days.length - 0.4] }, y: { range: (_, __, most) => [0, Math.max(most * 1.08, least)] } },
    axes: [
      {
        ...axis,
        grid: { show: false },
        // Whole days only, and no more of them than there is room for.
        splits: () => ticks(days.length, Math.max(2, Math.floor(on.clientWidth / 90))),
        values: (_, splits) => splits.map((at) => dayWorded(Date.parse(`${days[at] ?? ''}T00:00:00Z`))),
      },
      { ...axis, size: 72, values: (_, splits) => splits.map(worded) },
    ],
    series: [
      {},
      ...series.map(({ label, colour }) => ({
        label,
        stroke: colour,
        width: shape === 'lines' ? 2 : 0,
        ...(shape === 'bars' ? { fill: colour, paths: bars, points: { show: false } } : { spanGaps: true, points: { show: true, size: 5, fill: colour } }),
      })),
    ],
  };
  return new UPlot(options, [days.map((_, at) => at), ...series.map(({ values }) => values)] as UPlot.AlignedData, on);
}

/** So many numbers of days, evenly apart, the last one among them. */
export function ticks(days: number, most: number): number[] {
  const step = Math.max(1, Math.ceil(days / most));
  const found: number[] = [];
  for (let at = days - 1; at >= 0; at -= step) found.unshift(at);
  return found;
}
