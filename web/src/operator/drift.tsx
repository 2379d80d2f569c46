import { Empty, Show } from "../parts/states";
import { formatNumber, textOf } from "../words";
import { useLive } from "./live";
import { State, Table } from "./table";

interface Finding {
  part: string;
  name: string;
  status: string;
  psi?: number | null;
  reasons: string[];
}
interface DriftAnswer {
  versions: { model: string; version: string; status: string; reason?: string | null; findings?: Finding[] }[];
}

export function Drift() {
  const drift = useLive<DriftAnswer>("/admin/reports/drift", 15_000);
  return (
    <Show loaded={drift} rows={6}>
      {({ versions }) =>
        versions.length === 0 ? (
          <Empty>{textOf("o_noDrift")}</Empty>
        ) : (
          <>
            {versions.map((each) => (
              <section key={`${each.model} ${each.version}`} class="card stack">
                <div class="row apart">
                  <h2>
                    {each.model} {each.version}
                  </h2>
                  <State state={each.status} />
                </div>
                {each.reason && <p class="muted">{each.reason}</p>}
                {(each.findings ?? []).length > 0 && (
                  <Table
                    label={`${each.model} ${each.version}`}
                    rows={each.findings ?? []}
                    id={(finding) => `${finding.part} ${finding.name}`}
                    columns={[
                      { name: textOf("o_route"), cell: (finding) => `${finding.part}: ${finding.name}` },
                      { name: textOf("o_state"), cell: (finding) => <State state={finding.status} /> },
                      {
                        name: "PSI",
                        cell: (finding) => (finding.psi == null ? "–" : formatNumber(finding.psi, 3)),
                        right: true,
                      },
                      { name: textOf("o_why"), cell: (finding) => finding.reasons.join("; ") },
                    ]}
                  />
                )}
              </section>
            ))}
          </>
        )
      }
    </Show>
  );
}
