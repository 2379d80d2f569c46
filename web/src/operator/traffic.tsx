import { useState } from "preact/hooks";
import { call, type Schemas } from "../api/client";
import { LazyPlot } from "../parts/lazy_plot";
import { Pick } from "../parts/pick";
import { Show } from "../parts/states";
import { Table } from "../parts/table";
import { formatNumber, formatSeconds, textOf } from "../words";
import { useLive } from "./live";

const SPANS = ["5m", "1h", "6h", "1d", "7d"];
const POINTS = 60;
const LINES = [
  ["requests_per_s", "o_requests"],
  ["settled_per_s", "o_settled"],
] as const;
const QUANTILES = ["p50_s", "p95_s", "p99_s"] as const;

type Took = Schemas["Durations"];

export function Traffic() {
  const [window, setWindow] = useState("1h");
  const query = { window, points: POINTS };
  const throughput = useLive(
    `throughput ${window}`,
    (signal) => call("get", "/admin/reports/throughput", { query, signal }),
    5000,
  );
  const latency = useLive(
    `latency ${window}`,
    (signal) => call("get", "/admin/reports/latency", { query, signal }),
    5000,
  );
  return (
    <>
      <div class="filters">
        <Pick
          label={textOf("o_span")}
          value={window}
          options={SPANS.map((each) => [each, textOf(`o_span_${each}`)])}
          pick={setWindow}
        />
      </div>
      <section class="card stack" aria-labelledby="throughput">
        <h2 id="throughput">{textOf("o_traffic")}</h2>
        <Show loaded={throughput} rows={6}>
          {({ points }) => (
            <LazyPlot
              label={textOf("o_traffic")}
              times
              x={points.map((point) => secondsOf(point.at))}
              series={LINES.map(([field, name]) => ({
                name: textOf(name),
                values: points.map((point) => point[field]),
              }))}
            />
          )}
        </Show>
      </section>
      <section class="card stack" aria-labelledby="latency">
        <h2 id="latency">{textOf("o_latencyPlot")}</h2>
        <Show loaded={latency} rows={6}>
          {({ points }) => (
            <LazyPlot
              label={textOf("o_latencyPlot")}
              times
              x={points.map((point) => secondsOf(point.at))}
              yNames={formatSeconds}
              series={QUANTILES.map((field) => ({
                name: field.slice(0, 3),
                values: points.map((point) => point[field] ?? null),
              }))}
            />
          )}
        </Show>
      </section>
      <h2>{textOf("o_latency")}</h2>
      <Show loaded={latency} rows={6}>
        {(report) => <Durations report={report} />}
      </Show>
    </>
  );
}

function Durations({ report }: { report: Schemas["Latency"] }) {
  const rows: (Took & { what: string })[] = [
    ...report.predictions.map((each) => ({ ...each, what: `${each.model} ${each.version}` })),
    ...report.models.map((each) => ({ ...each, what: `${each.station}: ${each.model} ${each.version}` })),
    ...report.routes.map((each) => ({ ...each, what: `${each.service}: ${each.route}` })),
  ];
  return (
    <Table
      labelled
      label={textOf("o_latency")}
      rows={rows.filter((each) => each.count)}
      id={(each) => each.what}
      columns={[
        { name: textOf("o_route"), cell: (each) => <code>{each.what}</code> },
        { name: "n", cell: (each) => formatNumber(each.count ?? 0), right: true },
        ...QUANTILES.map((name) => ({
          name: name.slice(0, 3),
          cell: (each: Took) => (each[name] == null ? "–" : formatSeconds(each[name])),
          right: true,
        })),
      ]}
    />
  );
}

function secondsOf(moment: string): number {
  return Date.parse(moment) / 1000;
}
