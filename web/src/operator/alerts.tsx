import { useState } from "preact/hooks";
import { call, type Schemas } from "../api/client";
import { Pick } from "../parts/pick";
import { ActButton, Show } from "../parts/states";
import { Moment } from "../parts/status";
import { Table } from "../parts/table";
import { said, t, textOf, type Words } from "../words";
import { useLive } from "./live";
import { State } from "./state";

type Alert = Schemas["ShownAlert"];

/** The choices of how long to silence an alert, in minutes. */
const SILENCES = ["60", "480", "1440", "10080"];

export function Alerts() {
  const alerts = useLive("alerts", (signal) => call("get", "/admin/alerts", { signal }));
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
                <Open key={alert.id} alert={alert} changed={alerts.reload} />
              ))}
            </ul>
          )}
          {resolved.length > 0 && (
            <>
              <h2>{textOf("o_resolved")}</h2>
              <Table
                labelled
                label={textOf("o_resolved")}
                rows={resolved}
                id={(each) => each.id}
                columns={[
                  { name: textOf("o_alerts"), cell: (each) => each.rule },
                  { name: textOf("o_state"), cell: (each) => <State state={each.severity} /> },
                  { name: textOf("o_why"), cell: (each) => textOfAlert(each.summary) },
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

function Open({ alert, changed }: { alert: Alert; changed: () => void }) {
  const [minutes, setMinutes] = useState(SILENCES[0] ?? "60");
  const silence = async (length: number): Promise<void> => {
    const path = { alert_id: alert.id };
    await call("post", "/admin/alerts/{alert_id}/silence", { path, body: { minutes: length } });
    changed();
  };
  const action = textOfAlert(alert.action);
  return (
    <li class="card stack tight">
      <div class="row">
        <strong>{alert.rule}</strong> <State state={alert.severity} /> <State state={alert.state} />
        {alert.silenced_until && (
          <span class="chip">
            {textOf("o_silenced")} <Moment at={alert.silenced_until} />
          </span>
        )}
      </div>
      <p>{textOfAlert(alert.summary)}</p>
      {action && (
        <p>
          <strong>{textOf("o_whatToDo")}</strong> {action}
        </p>
      )}
      <p class="small muted">
        <Moment at={alert.fired_at ?? alert.pending_since} ago />
      </p>
      <div class="row end">
        {alert.silenced_until && <ActButton act={() => silence(0)}>{textOf("o_endSilence")}</ActButton>}
        <Pick
          label={textOf("o_silenceFor")}
          value={minutes}
          options={SILENCES.map((each) => [each, textOf(`o_m${each}`)])}
          pick={setMinutes}
        />
        <ActButton act={() => silence(Number(minutes))}>{textOf("o_silence")}</ActButton>
      </div>
    </li>
  );
}

/** The text of an alert, in the language of the page. */
export function textOfAlert(texts: Readonly<Record<string, string>>): string {
  return said(texts as unknown as Words);
}
