import { useState } from "preact/hooks";
import { call, type Schemas } from "../api/client";
import { Pick } from "../parts/pick";
import { Show } from "../parts/states";
import { Table } from "../parts/table";
import { useLoad } from "../state/load";
import { formatNumber, formatPercent, formatSeconds, said, textOf } from "../words";

type Compared = Schemas["ModelComparison"];

const HOURS = ["1", "24", "168"];

/** Compares canary and shadow versions with the default version: errors, durations and answers. */
export function Comparison({ model }: { model: Schemas["OverseenModel"] }) {
  const [open, setOpen] = useState(false);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{textOf("o_compare")}</summary>
      {open && <Loaded model={model} />}
    </details>
  );
}

function Loaded({ model }: { model: Schemas["OverseenModel"] }) {
  const [hours, setHours] = useState("24");
  const compared = useLoad(`comparison ${model.name} ${hours}`, (signal) =>
    call("get", "/admin/models/{name}/comparison", {
      path: { name: model.name },
      query: { hours: Number(hours) },
      signal,
    }),
  );
  return (
    <div class="stack">
      <Pick
        label={textOf("o_span")}
        value={hours}
        options={HOURS.map((each) => [each, textOf(`o_h${each}`)])}
        pick={setHours}
      />
      <Show loaded={compared} rows={4}>
        {(found) =>
          found.versions.length === 0 ? (
            <p class="muted">{textOf("o_nothingToCompare")}</p>
          ) : (
            <>
              <Versions found={found} model={model} />
              <Shadows shadows={found.shadows} />
            </>
          )
        }
      </Show>
    </div>
  );
}

function Versions({ found, model }: { found: Compared; model: Schemas["OverseenModel"] }) {
  const roleOf = (version: string): string =>
    version === model.default_version
      ? textOf("o_default")
      : model.versions.some((each) => each.version === version && each.weight)
        ? textOf("o_canary")
        : "";
  return (
    <Table
      labelled
      label={textOf("o_compare")}
      rows={found.versions}
      id={(each) => each.version}
      columns={[
        {
          name: textOf("o_version"),
          cell: ({ version }) => (
            <>
              {version} {roleOf(version) && <span class="chip accent">{roleOf(version)}</span>}
            </>
          ),
        },
        { name: textOf("o_ended"), cell: (each) => formatNumber(each.succeeded + each.failed), right: true },
        { name: textOf("o_failedShare"), cell: failedShare, right: true },
        { name: textOf("o_took_p50"), cell: (each) => seconds(each.p50_running_s), right: true },
        { name: textOf("o_took_p95"), cell: (each) => seconds(each.p95_running_s), right: true },
        ...found.answers.map((field) => ({
          name: said(field.title),
          cell: ({ version }: { version: string }) => (
            <Answers answered={field.versions.find((each) => each.version === version)} />
          ),
        })),
      ]}
    />
  );
}

function Answers({ answered }: { answered: Schemas["VersionAnswers"] | undefined }) {
  if (!answered) return <>–</>;
  if (answered.mean !== null) return <>{textOf("o_mean", { mean: formatNumber(answered.mean, 3) })}</>;
  return (
    <ul class="stack tight small">
      {answered.shares.map((each) => (
        <li key={said(each.label)} class="row apart">
          <span>{said(each.label)}</span> <span class="number">{formatPercent(each.share)}</span>
        </li>
      ))}
    </ul>
  );
}

function Shadows({ shadows }: { shadows: Compared["shadows"] }) {
  if (shadows === null) return <p class="notice warn">{textOf("o_unknown")}</p>;
  if (shadows.length === 0) return null;
  return (
    <Table
      labelled
      label={textOf("o_shadow")}
      rows={shadows}
      id={(each) => `${each.version} ${each.shadow}`}
      columns={[
        { name: textOf("o_shadow"), cell: (each) => each.shadow },
        { name: textOf("o_beside"), cell: (each) => each.version },
        { name: textOf("o_same"), cell: (each) => share(each.same, each), right: true },
        { name: textOf("o_different"), cell: (each) => share(each.different, each), right: true },
        { name: textOf("o_failedShare"), cell: (each) => share(each.failed, each), right: true },
        {
          name: textOf("o_difference"),
          cell: (each) =>
            each.differences
              .filter((number) => number.mean !== null)
              .map((number) => `${number.field} ${formatNumber(number.mean ?? 0, 4)}`)
              .join(", ") || "–",
        },
      ]}
    />
  );
}

function failedShare({ succeeded, failed }: { succeeded: number; failed: number }): string {
  return succeeded + failed ? formatPercent(failed / (succeeded + failed)) : "–";
}

function share(count: number, all: { same: number; different: number; failed: number }): string {
  const total = all.same + all.different + all.failed;
  return total ? `${formatPercent(count / total)} (${formatNumber(count)})` : "–";
}

function seconds(value: number | null): string {
  return value === null ? "–" : formatSeconds(value);
}
