import { ask } from "../api/client";
import { ActButton, Show } from "../parts/states";
import { Moment } from "../parts/status";
import { said, t, textOf, type Words } from "../words";
import { useLive } from "./live";
import { State, Table } from "./table";

interface Alert {
  id: string;
  rule: string;
  severity: string;
  state: string;
  pending_since: string;
  fired_at: string | null;
  resolved_at: string | null;
  silenced_until?: string | null;
  summary: Words;
}

export function Alerts() {
  const alerts = useLive<{ open: Alert[]; resolved: Alert[] }>("/admin/alerts", 3000);
  return (
    <Show loaded={alerts} rows={5}>
      {({ open, resolved }) => (
        <>
          {open.length === 0 ? (
            <p class="notice good" role="status">
              {textOf("o_nothingWrong")}
            </p>
          ) : (
            <ul class="stack">
              {open.map((alert) => (
                <li key={alert.id} class="card row apart">
                  <span class="grow">
                    <strong>{alert.rule}</strong> <State state={alert.severity} /> <State state={alert.state} />
                    <p>{said(alert.summary)}</p>
                    <p class="small muted">
                      {t("since")} <Moment at={alert.fired_at ?? alert.pending_since} ago />
                      {alert.silenced_until && (
                        <>
                          {" "}
                          · {textOf("o_silenced")} <Moment at={alert.silenced_until} />
                        </>
                      )}
                    </p>
                  </span>
                  <ActButton
                    act={async () => {
                      await ask("post", `/admin/alerts/${encodeURIComponent(alert.id)}/silence`, { minutes: 60 });
                      alerts.reload();
                    }}
                  >
                    {textOf("o_silence")}
                  </ActButton>
                </li>
              ))}
            </ul>
          )}
          {resolved.length > 0 && (
            <>
              <h2>{textOf("o_resolved")}</h2>
              <Table
                label={textOf("o_resolved")}
                rows={resolved}
                id={(each) => each.id}
                columns={[
                  { name: textOf("o_alerts"), cell: (each) => each.rule },
                  { name: textOf("o_state"), cell: (each) => <State state={each.severity} /> },
                  { name: textOf("o_why"), cell: (each) => said(each.summary) },
                  {
                    name: t("when"),
                    cell: (each) => each.resolved_at && <Moment at={each.resolved_at} ago />,
                    right: true,
                  },
                ]}
              />
            </>
          )}
        </>
      )}
    </Show>
  );
}
