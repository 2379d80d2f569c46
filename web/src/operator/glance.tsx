import { call, type Schemas } from "../api/client";
import { Show } from "../parts/states";
import { Table } from "../parts/table";
import { formatNumber, formatSeconds, textOf } from "../words";
import { textOfAlert } from "./alerts";
import { useLive } from "./live";
import { State } from "./state";

type Overview = Schemas["Overview"];

/** The overview: whether all is well. */
export function Glance() {
  const loaded = useLive("overview", (signal) => call("get", "/admin/overview", { signal }));
  return (
    <Show loaded={loaded} rows={8}>
      {({ overview, problems }) => (
        <>
          {overview === null ? <p class="notice warn">{textOf("o_unknown")}</p> : <Known overview={overview} />}
          {Object.entries(problems).map(([part, why]) => (
            <p key={part} class="notice warn">
              {textOf("o_partAway", { part, why })}
            </p>
          ))}
        </>
      )}
    </Show>
  );
}

function Known({ overview }: { overview: Overview }) {
  const good = overview.status === "healthy" && overview.alerts_firing === 0;
  const ready = overview.queues.reduce((sum, queue) => sum + queue.ready, 0);
  const oldest = Math.max(0, ...overview.queues.map((queue) => queue.oldest_task_age_s ?? 0));
  const figures: [string, string, string?][] = [
    [textOf("o_settled"), formatNumber(overview.settled_per_s, 1)],
    [textOf("o_requests"), formatNumber(overview.requests_per_s, 1)],
    [textOf("o_waiting"), formatNumber(ready)],
    [textOf("o_oldest"), ready ? formatSeconds(oldest) : "–"],
    [
      textOf("o_workers"),
      formatNumber(overview.workers),
      textOf("o_busy", { busy: overview.workers_busy, n: overview.workers }),
    ],
    [textOf("o_errors"), formatNumber(overview.errors_per_minute, 1)],
    [textOf("o_deadLetters"), formatNumber(overview.dead_letters)],
    [textOf("o_today"), formatNumber(overview.revenue_credits)],
  ];
  return (
    <>
      <div class={`notice ${good ? "good" : "bad"}`} role="status">
        <strong>{textOf(good ? "o_allRight" : "o_notRight")}</strong>
        {overview.firing.map((each) => (
          <p key={each.rule}>
            <a href="/ui/operator/alerts">{each.rule}</a>: {textOfAlert(each.summary)}
          </p>
        ))}
      </div>
      <dl class="figures">
        {figures.map(([name, value, note]) => (
          <div key={name} class="card">
            <dt class="muted small">{name}</dt>
            <dd>
              <span class="figure-value">{value}</span>
              {note && <p class="small muted">{note}</p>}
            </dd>
          </div>
        ))}
      </dl>
      <h2>{textOf("o_services")}</h2>
      <Table
        labelled
        label={textOf("o_services")}
        rows={overview.services}
        id={(each) => each.service}
        columns={[
          { name: textOf("o_service"), cell: (each) => each.service },
          { name: textOf("o_state"), cell: (each) => <State state={each.state} /> },
          {
            name: textOf("o_healthyInstances"),
            cell: (each) => textOf("o_healthyOf", { healthy: each.healthy, live: each.expected }),
            right: true,
          },
        ]}
      />
    </>
  );
}
