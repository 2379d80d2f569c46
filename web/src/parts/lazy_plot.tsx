import { Unreachable } from "../api/problem";
import { loadCode } from "../state/code";
import { useLoad } from "../state/load";
import "../styles/plot.css";
import type { PlotProps } from "./plot";
import { Failure } from "./states";

type Plot = (typeof import("./plot"))["default"];
let known: Plot | undefined;

async function loadPlot(): Promise<Plot> {
  known = (await import("./plot")).default;
  return known;
}

/** A plot whose code is loaded when the first one is shown; a placeholder reserves its space. */
export function LazyPlot(props: PlotProps) {
  // Each asks by itself, also when another has the code already: that may have come after this one was drawn.
  const { error, reload } = useLoad("plot", () => loadCode(loadPlot));
  const Plot = known;
  if (Plot) return <Plot {...props} />;
  if (error !== undefined && !(error instanceof Unreachable)) return <Failure error={error} retry={reload} />;
  return <div class="waiting" style={{ height: `${props.height ?? 260}px` }} />;
}
