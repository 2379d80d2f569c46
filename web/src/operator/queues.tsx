import { useState } from "preact/hooks";
import { call, type Schemas } from "../api/client";
import { Confirm } from "../parts/dialog";
import { say } from "../parts/messages";
import { ActButton, Show } from "../parts/states";
import { Table } from "../parts/table";
import { useLoad } from "../state/load";
import { formatBytes, formatNumber, formatSeconds, textOf } from "../words";
import { useLive } from "./live";

const MOST = 1000;

export function Queues() {
  const queues = useLive("queues", (signal) => call("get", "/admin/queues", { signal }), 2000);
  const [open, setOpen] = useState("");
  return (
    <>
      <Show loaded={queues} rows={4}>
        {({ items }) => (
          <Table
            labelled
            label={textOf("o_queues")}
            rows={items}
            id={(each) => each.queue}
            columns={[
              { name: textOf("o_queue"), cell: (each) => <code>{each.queue}</code> },
              { name: textOf("o_ready"), cell: (each) => formatNumber(each.ready), right: true },
              {
                name: textOf("o_oldest"),
                cell: (each) =>
                  each.oldest_task_age_s === null || !each.ready ? "–" : formatSeconds(each.oldest_task_age_s),
                right: true,
              },
              { name: textOf("o_deadLetters"), cell: (each) => formatNumber(each.dead_letters), right: true },
              {
                name: textOf("o_look"),
                cell: (each) => (
                  <button class="button little" type="button" onClick={() => setOpen(each.queue)}>
                    {textOf("o_look")}
                  </button>
                ),
                right: true,
                unnamed: true,
              },
            ]}
          />
        )}
      </Show>
      {open && <Dead key={open} queue={open} changed={queues.reload} />}
    </>
  );
}

function Dead({ queue, changed }: { queue: string; changed: () => void }) {
  const path = { queue };
  const dead = useLoad(`dead ${queue}`, (signal) =>
    call("get", "/admin/queues/{queue}/dead", { path, query: { limit: 100 }, signal }),
  );
  const [discarding, setDiscarding] = useState(false);
  const done = ({ moved }: Schemas["MovedLetters"]): void => {
    say(textOf("o_moved", { n: moved }));
    dead.reload();
    changed();
  };
  return (
    <section class="stack" aria-labelledby="dead">
      <h2 id="dead">
        {textOf("o_deadLetters")}: <code>{queue}</code>
      </h2>
      <Show loaded={dead} rows={4}>
        {({ count, items }) =>
          items.length === 0 ? (
            <p class="muted">{textOf("o_noDead")}</p>
          ) : (
            <>
              <div class="row">
                <ActButton
                  act={async () =>
                    done(await call("post", "/admin/queues/{queue}/redrive", { path, body: { limit: MOST } }))
                  }
                >
                  {textOf("o_redrive")}
                </ActButton>
                <button class="button danger" type="button" onClick={() => setDiscarding(true)}>
                  {textOf("o_discard")}
                </button>
              </div>
              <Table
                labelled
                label={textOf("o_deadLetters")}
                rows={items}
                id={(each) => each.message_id}
                columns={[
                  { name: "id", cell: (each) => <code>{each.message_id.slice(0, 13)}</code> },
                  { name: textOf("o_route"), cell: (each) => `${each.kind} ${each.model ?? ""} ${each.version ?? ""}` },
                  { name: "n", cell: (each) => formatNumber(each.tasks), right: true },
                  { name: textOf("o_size"), cell: (each) => formatBytes(each.size_bytes), right: true },
                  { name: textOf("o_redriven"), cell: (each) => formatNumber(each.redriven), right: true },
                  { name: textOf("o_why"), cell: (each) => each.reason ?? "–" },
                ]}
              />
              {discarding && (
                <Confirm
                  title={textOf("o_discardAsk", { queue })}
                  action={textOf("o_discard")}
                  act={async () =>
                    done(await call("post", "/admin/queues/{queue}/discard", { path, body: { confirm: count } }))
                  }
                  close={() => setDiscarding(false)}
                >
                  <p>{textOf("o_discardSays", { n: count })}</p>
                </Confirm>
              )}
            </>
          )
        }
      </Show>
    </section>
  );
}
