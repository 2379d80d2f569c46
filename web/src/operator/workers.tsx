import { call, type Schemas } from "../api/client";
import { Empty, Show } from "../parts/states";
import { Table } from "../parts/table";
import { formatBytes, formatNumber, formatPercent, formatSeconds, t, textOf } from "../words";
import { useLive } from "./live";
import { adviceFor } from "./scaling";
import { State } from "./state";

const TASKS = "ml_tasks";

export function Workers() {
  const workers = useLive("workers", (signal) => call("get", "/admin/workers", { signal }), 1000);
  const queues = useLive("queues", (signal) => call("get", "/admin/queues", { signal }), 5000);
  return (
    <Show loaded={workers} rows={6}>
      {(report) => (
        <>
          <Hint workers={report} queues={queues.data} />
          {report.items.length === 0 ? <Empty>{textOf("o_noWorkers")}</Empty> : <Rows items={report.items} />}
        </>
      )}
    </Show>
  );
}

/** Whether there are enough workers, and what to do if not. */
function Hint({ workers, queues }: { workers: Schemas["Workers"]; queues: Schemas["Queues"] | undefined }) {
  const waiting = queues?.items.filter((each) => each.queue.startsWith(TASKS)) ?? [];
  const oldestS = Math.max(0, ...waiting.map((each) => each.oldest_task_age_s ?? 0));
  const advice = adviceFor({
    live: workers.live,
    busy: workers.busy,
    queued: queues?.queued_predictions ?? 0,
    oldestS,
    perS: workers.tasks_per_s,
  });
  const busy = textOf("o_busy", { busy: workers.busy, n: workers.live });
  if (advice.kind === "enough") {
    return (
      <p class="muted" role="status">
        {textOf("o_hintEnough")} ({busy})
      </p>
    );
  }
  return (
    <div class={`notice ${advice.kind === "fewer" ? "" : "warn"}`} role="status">
      <strong>{textOf(`o_hint_${advice.kind}`, { workers: advice.workers })}</strong>
      <p class="muted">{busy}</p>
      {advice.drainS !== null && advice.drainS > 0 && (
        <p>{textOf("o_hintDrain", { oldest: formatSeconds(oldestS), drain: formatSeconds(advice.drainS) })}</p>
      )}
      {advice.kind === "stuck" ? (
        <p>
          {textOf("o_hintLook")} <a href="/ui/operator/logs?service=ml_worker">{textOf("o_logs")}</a>
        </p>
      ) : (
        <ul class="stack tight">
          {[
            `python start.py --start --workers ${advice.workers}`,
            `docker compose up -d --scale ml-worker=${advice.workers}`,
          ].map((command) => (
            <li key={command}>
              <code>{command}</code>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

function Rows({ items }: { items: readonly Schemas["WorkerLine"][] }) {
  return (
    <Table
      labelled
      label={textOf("o_workers")}
      rows={items}
      // A worker that replaced a crashed one has its name.
      id={(each) => `${each.id} ${each.started_at}`}
      columns={[
        { name: t("worker"), cell: (each) => <code>{each.id}</code> },
        { name: textOf("o_state"), cell: (each) => <State state={each.state} /> },
        {
          name: textOf("o_inHand"),
          cell: (each) =>
            each.current_task ? `${each.current_task.model} × ${each.current_task.tasks}` : each.busy ? "…" : "–",
        },
        { name: textOf("o_done"), cell: (each) => formatNumber(each.tasks_done), right: true },
        { name: textOf("o_perSecond"), cell: (each) => formatNumber(each.tasks_per_s, 1), right: true },
        { name: textOf("o_memory"), cell: (each) => formatBytes(each.memory_bytes), right: true },
        {
          name: textOf("o_cpu"),
          cell: (each) => (each.cpu_share === null ? "–" : formatPercent(each.cpu_share)),
          right: true,
        },
        { name: textOf("o_uptime"), cell: (each) => formatSeconds(each.uptime_s), right: true },
      ]}
    />
  );
}
