import { useEffect, useState } from "preact/hooks";
import "../styles/plot.css";
import type { PlotProps } from "./plot";

type Plot = (typeof import("./plot"))["default"];
let known: Plot | null = null;

/** A plot, whose code is fetched when the first one is shown; the room is kept meanwhile. */
export function LazyPlot(props: PlotProps) {
  const [Loaded, setLoaded] = useState<{ Plot: Plot } | null>(known && { Plot: known });
  useEffect(() => {
    if (known) return;
    void import("./plot").then((module) => {
      known = module.default;
      setLoaded({ Plot: module.default });
    });
  }, []);
  if (!Loaded) return <div class="waiting" style={{ height: `${props.height ?? 260}px` }} />;
  return <Loaded.Plot {...props} />;
}
