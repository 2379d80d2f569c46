import { useState } from "preact/hooks";
import { call, type Schemas } from "../api/client";
import { Pick } from "../parts/pick";
import { Empty, Show } from "../parts/states";
import { Moment } from "../parts/status";
import { formatNumber, formatPercent, formatSeconds, textOf } from "../words";
import { Distribution } from "./distribution";
import { useLive } from "./live";
import { State } from "./state";

type Version = Schemas["VersionFinding"];

export function Drift() {
  const drift = useLive("drift", (signal) => call("get", "/admin/reports/drift", { signal }), 15_000);
  return (
    <Show loaded={drift} rows={6}>
      {({ versions }) =>
        versions.length === 0 ? (
          <Empty>{textOf("o_noDrift")}</Empty>
        ) : (
          <>
            {versions.map((each) => (
              <VersionCard key={`${each.model} ${each.version}`} found={each} />
            ))}
          </>
        )
      }
    </Show>
  );
}

function VersionCard({ found }: { found: Version }) {
  const windows = found.windows ?? [];
  const [chosen, setChosen] = useState<string | null>(null);
  // The longest window with enough rows gives the status of the version.
  const telling = windows.findLast((each) => each.status !== "not_enough_data") ?? windows.at(-1);
  const shown = windows.find((each) => String(each.window_s) === chosen) ?? telling;
  return (
    <section class="card stack">
      <div class="row apart">
        <h2>
          {found.model} {found.version}
        </h2>
        <State state={found.status} />
      </div>
      {found.reason && <NoReference code={found.reason_code} reason={found.reason} />}
      {shown && (
        <>
          <div class="row apart">
            <Pick
              label={textOf("o_span")}
              value={String(shown.window_s)}
              options={windows.map((each) => [String(each.window_s), formatSeconds(each.window_s)])}
              pick={setChosen}
            />
            <span class="small muted">
              {textOf("o_rowsOf", { rows: shown.rows, passed: shown.passed })} · <Moment at={found.computed_at} ago />
            </span>
          </div>
          <div class="distributions">
            {shown.fields.map((field) => (
              <FieldShown key={`${field.part} ${field.name}`} field={field} />
            ))}
          </div>
        </>
      )}
    </section>
  );
}

/** Why there is nothing to compare with. What is wrong inside a file is said by the program that reads it, in English. */
function NoReference({ code, reason }: { code: Version["reason_code"]; reason: string }) {
  if (code === "missing") return <p class="muted">{textOf("o_reference_missing")}</p>;
  if (code !== "broken") return <p class="muted">{reason}</p>;
  return (
    <div class="muted stack tight">
      <p>{textOf("o_reference_broken")}</p>
      <p class="small mono" lang="en">
        {reason}
      </p>
    </div>
  );
}

function FieldShown({ field }: { field: Schemas["FieldFinding"] }) {
  const name = `${textOf(`o_part_${field.part}`)}: ${field.name}`;
  const shares = (["missing_share", "out_of_range_share", "unseen_share"] as const).filter((each) => field[each]);
  return (
    <section class="stack tight" aria-label={name}>
      <div class="row apart">
        <h3>{name}</h3>
        <State state={field.status} />
      </div>
      {field.distribution && <Distribution name={name} shares={field.distribution} />}
      <p class="small muted">
        {field.psi == null ? textOf("o_rowsNeeded", { n: field.rows_needed }) : `PSI ${formatNumber(field.psi, 3)}`}
        {shares.map((each) => ` · ${textOf(`o_${each}`)} ${formatPercent(field[each] ?? 0)}`)}
      </p>
      {(field.changes ?? []).map((change) => (
        <p key={change.what} class="small">
          {textOf(`o_change_${change.what}`, {
            share: formatPercent(change.share ?? 0),
            usual: formatPercent(change.reference_share ?? 0),
            psi: formatNumber(field.psi ?? 0, 2),
            chance: formatNumber(field.psi_by_chance ?? 0, 2),
            usualPsi: formatNumber(field.usual_psi ?? 0, 2),
          })}
        </p>
      ))}
    </section>
  );
}
