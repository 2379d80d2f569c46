import { useState } from "preact/hooks";
import { LazyPlot } from "../parts/lazy_plot";
import { Pick } from "../parts/pick";
import { Show } from "../parts/states";
import { formatNumber, formatSeconds, textOf } from "../words";
import { useLive } from "./live";
import { Table } from "./table";

interface Throughput {
  points: Record<string, number | string>[];
}
interface Took {
  count: number;
  mean_s: number | null;
  p50_s: number | null;
  p95_s: number | null;
  p99_s: number | null;
}
interface Latency {
  routes: (Took & { service: string; route: string })[];
  models: (Took & { station: string; model: string; version: string })[];
  predictions: (Took & { model: string; version: string })[];
}

const SPANS = ["300", "3600", "86400"];
const LINES: readonly [string, string][] = [
  ["requests_per_s", "o_requests"],
  ["settled_per_s", "o_settled"],
];

export function Traffic() {
  const [span, setSpan] = useState("3600");
  const throughput = useLive<Throughput>(`/admin/reports/throughput?window=${span}s`, 5000);
  const latency = useLive<Latency>(`/admin/reports/latency?window=${span}s`, 5000);
  return (
    <>
      <div class="filters">
        <Pick
          label={textOf("o_span")}
          value={span}
          options={SPANS.map((each) => [each, textOf(`o_s${each}`)])}
          pick={setSpan}
        />
      </div>
      <section class="card stack" aria-label={textOf("o_traffic")}>
        <Show loaded={throughput} rows={6}>
          {({ points }) => (
            <LazyPlot
              label={textOf("o_traffic")}
              times
              x={points.map(momentOf)}
              series={LINES.map(([field, name]) => ({
                name: textOf(name),
                values: points.map((point) => (typeof point[field] === "number" ? point[field] : null)),
              }))}
            />
          )}
        </Show>
      </section>
      <h2>{textOf("o_latency")}</h2>
      <Show loaded={latency} rows={6}>
        {(data) => (
          <Table
            label={textOf("o_latency")}
            rows={[
              ...data.predictions.map((each) => ({ ...each, what: `${each.model} ${each.version}` })),
              ...data.models.map((each) => ({ ...each, what: `${each.station}: ${each.model} ${each.version}` })),
              ...data.routes.map((each) => ({ ...each, what: `${each.service}: ${each.route}` })),
            ].filter((each) => each.count > 0)}
            id={(each) => each.what}
            columns={[
              { name: textOf("o_route"), cell: (each) => <code>{each.what}</code> },
              { name: "n", cell: (each) => formatNumber(each.count), right: true },
              ...(["p50_s", "p95_s", "p99_s"] as const).map((name) => ({
                name: name.slice(0, 3),
                cell: (each: Took) => (each[name] === null ? "–" : formatSeconds(each[name])),
                right: true,
              })),
            ]}
          />
        )}
      </Show>
    </>
  );
}

/** When a point was: seconds since 1970, whatever the report calls it. */
function momentOf(point: Record<string, number | string>): number {
  const at = point["at"] ?? point["start"] ?? point["since"] ?? point["timestamp"] ?? 0;
  return typeof at === "number" ? at : Date.parse(at) / 1000;
}
