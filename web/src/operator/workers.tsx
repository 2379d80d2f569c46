import { Empty, Show } from "../parts/states";
import { formatNumber, formatPercent, formatSeconds, t, textOf } from "../words";
import { useLive } from "./live";
import { State, Table } from "./table";

interface WorkerRow {
  id: string;
  state: string;
  busy: boolean;
  current_task: { tasks: number; model: string } | null;
  tasks_done: number;
  tasks_per_s: number;
  memory_bytes: number;
  cpu_share: number | null;
  uptime_s: number;
}
interface WorkersAnswer {
  live: number;
  busy: number;
  items: WorkerRow[];
}
interface QueueFigures {
  items: { queue: string; ready: number }[];
}

export function Workers() {
  const workers = useLive<WorkersAnswer>("/admin/workers", 1000);
  const queues = useLive<QueueFigures>("/admin/reports/queues", 5000);
  const waiting = queues.data?.items.find((each) => each.queue === "ml_tasks")?.ready ?? 0;
  return (
    <Show loaded={workers} rows={6}>
      {({ live, busy, items }) =>
        items.length === 0 ? (
          <Empty>{textOf("o_noWorkers")}</Empty>
        ) : (
          <>
            <p class="muted" role="status">
              {textOf("o_busy", { busy, n: live })}
              {busy === live && waiting > 0 && <strong>. {textOf("o_hintMore")}</strong>}
              {live > 1 && busy * 4 < live && waiting === 0 && `. ${textOf("o_hintFewer")}`}
            </p>
            <Table
              label={textOf("o_workers")}
              rows={items}
              id={(each) => each.id}
              columns={[
                { name: textOf("o_workers"), cell: (each) => <code>{each.id}</code> },
                { name: textOf("o_state"), cell: (each) => <State state={each.state} /> },
                {
                  name: textOf("o_inHand"),
                  cell: (each) =>
                    each.current_task
                      ? `${each.current_task.model} × ${each.current_task.tasks}`
                      : each.busy
                        ? "…"
                        : "–",
                },
                { name: textOf("o_done"), cell: (each) => formatNumber(each.tasks_done), right: true },
                { name: textOf("o_perSecond"), cell: (each) => formatNumber(each.tasks_per_s, 1), right: true },
                {
                  name: textOf("o_memory"),
                  cell: (each) => `${formatNumber(each.memory_bytes / 1e6, 0)} MB`,
                  right: true,
                },
                {
                  name: textOf("o_cpu"),
                  cell: (each) => (each.cpu_share === null ? "–" : formatPercent(each.cpu_share)),
                  right: true,
                },
                { name: t("time"), cell: (each) => formatSeconds(each.uptime_s), right: true },
              ]}
            />
          </>
        )
      }
    </Show>
  );
}
