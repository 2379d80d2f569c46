import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { theme } from "../state/theme";
import { useStore } from "../state/store";
import { formatNumber, formatTick, useLanguage } from "../words";

/** Steps between ticks of whole numbers. */
const WHOLE = [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9].flatMap((each) => [each, 2 * each, 5 * each]);

/** From this many values on, the line has no points. */
const MANY = 40;

export interface Series {
  name: string;
  values: (number | null)[];
}

export interface PlotProps {
  /** A description for screen readers. */
  label: string;
  /** Ascending: numbers, or seconds since 1970 with `times`. */
  x: number[];
  series: Series[];
  times?: boolean;
  /** Texts of the ticks in place of the numbers of `x`. */
  xNames?: (value: number) => string;
  yNames?: (value: number) => string;
  yRange?: [number, number];
  /** The values are whole numbers, and so are the ticks. */
  whole?: boolean;
  bars?: boolean;
  height?: number;
}

function colorOf(element: Element): string {
  return getComputedStyle(element).color;
}

/** A plot that owns its uPlot: created once, redrawn with new values, resized with its frame, destroyed at the end. */
export default function Plot(props: PlotProps) {
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const language = useLanguage();
  const shownTheme = useStore(theme);
  const height = props.height ?? 260;
  // Changes of these need a new uPlot; changes of values do not.
  const made = JSON.stringify([props.series.map((each) => each.name), props.times, props.bars, language, shownTheme]);
  const latest = useRef(props);
  latest.current = props;

  useEffect(() => {
    const element = frame.current;
    if (!element) return undefined;
    const build = (): void => {
      plot.current?.destroy();
      plot.current = new uPlot(
        optionsOf(element, latest, height),
        dataOf(latest.current.x, latest.current.series),
        element,
      );
    };
    build();
    const watch = new ResizeObserver(() => {
      const width = element.clientWidth;
      if (width && plot.current && plot.current.width !== width) plot.current.setSize({ width, height });
    });
    watch.observe(element);
    // The canvas does not follow by itself when the system changes between light and dark.
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", build);
    return () => {
      dark.removeEventListener("change", build);
      watch.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [made, height]);

  const { x, series } = props;
  useEffect(() => plot.current?.setData(dataOf(x, series)), [x, series]);

  return (
    <figure class="stack tight">
      <div class="plot" ref={frame} role="img" aria-label={props.label} style={{ height: `${height}px` }} />
      <figcaption class="plot-key" aria-hidden={props.series.length < 2}>
        {props.series.map((each, index) => (
          <span key={each.name} class={`series-line series-${(index % 6) + 1}`}>
            {each.name}
          </span>
        ))}
        <span class="muted" aria-hidden="true" />
      </figcaption>
    </figure>
  );
}

function dataOf(x: number[], series: readonly Series[]): uPlot.AlignedData {
  return [x, ...series.map((each) => each.values)];
}

function optionsOf(element: HTMLElement, latest: { current: PlotProps }, height: number): uPlot.Options {
  const probe = document.createElement("span");
  element.append(probe);
  const color = (name: string): string => {
    probe.className = name;
    return colorOf(probe);
  };
  const { series, times, bars, whole } = latest.current;
  const colors = series.map((_, index) => color(`series-${(index % 6) + 1}`));
  const muted = color("muted");
  probe.remove();
  const axis = { stroke: muted, grid: { stroke: muted, width: 0.25 }, ticks: { stroke: muted, width: 0.5 } };
  const names = (value: number): string => (latest.current.yNames ?? formatNumber)(value);
  const paths = bars && uPlot.paths.bars ? uPlot.paths.bars({ size: [0.7, 60] }) : undefined;
  return {
    width: Math.max(element.clientWidth, 200),
    height,
    padding: [8, 28, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { size: 8 } },
    scales: {
      x: { time: times === true },
      y: { range: (_, low, high) => latest.current.yRange ?? [Math.min(0, low), high > 0 ? high * 1.08 : 1] },
    },
    axes: [
      {
        ...axis,
        // Room for a time like "08:45 PM".
        space: 72,
        values: (_: uPlot, ticks: number[], _axis: number, _space: number, step: number) =>
          ticks.map((tick) => (times ? formatTick(tick, step) : xName(latest.current, tick))),
      },
      { ...axis, size: 60, values: (_, ticks) => ticks.map(names), ...(whole ? { incrs: WHOLE } : {}) },
    ],
    series: [
      {},
      ...series.map((each, index) => ({
        label: each.name,
        stroke: colors[index],
        width: 2,
        // A single value between gaps has no line, so it needs a point.
        points: { show: () => !bars && isSparse(latest.current), size: 6 },
        ...(paths ? { paths, fill: colors[index] } : {}),
      })),
    ],
  };
}

function isSparse({ series }: PlotProps): boolean {
  return series.every((each) => each.values.filter((value) => value !== null).length < MANY);
}

function xName(props: PlotProps, tick: number): string {
  return props.xNames ? props.xNames(tick) : formatNumber(tick);
}
