import { useState } from "preact/hooks";
import { ask, call, queryOf, type Schemas } from "../api/client";
import { nameOf, starsOf } from "../model/movement";
import { Field, useSending, wrongOf } from "../parts/form";
import { LazyPlot } from "../parts/lazy_plot";
import { say } from "../parts/messages";
import { Empty, Show } from "../parts/states";
import { Moment } from "../parts/status";
import { Table } from "../parts/table";
import { Title } from "../parts/title";
import { usePlace } from "../router";
import { balance, type User, session } from "../state/session";
import { useLoad } from "../state/load";
import { useStore } from "../state/store";
import { formatDay, formatNumber, said, t } from "../words";

export interface UsageRow {
  day: string;
  model: string;
  predictions: number;
  succeeded: number;
  failed: number;
  credits: number;
}

const PAGE = 25;

export function BalancePage() {
  const shared = useStore(balance);
  // A change of the number in the header loads the rest again.
  const mark = shared ? `${shared.available} ${shared.held}` : "";
  const loaded = useLoad("balance", (signal) => call("get", "/balance", { signal }));
  const shown = shared ?? loaded.data ?? null;
  return (
    <>
      <Title text={t("balance")} />
      <div class="stack">
        {shown === null && loaded.error !== undefined ? (
          <Show loaded={loaded}>{() => null}</Show>
        ) : (
          <>
            <dl class="figures">
              <Figure name={t("available")} value={shown?.available} />
              <Figure name={t("held")} value={shown?.held} note={t("heldSays")} />
            </dl>
            {shown?.available === 0 && <NoCredits />}
            <Threshold key={String(shown === null)} now={shown} />
          </>
        )}
        <Usage mark={mark} />
        <Statement mark={mark} />
      </div>
    </>
  );
}

function NoCredits() {
  const now = useStore(session);
  const user: User | null = now.state === "in" ? now.user : null;
  return (
    <div class="notice warn">
      <strong>{t("outOfCredits")}</strong>
      <p>{t("howToGetCredits", { name: user?.username ?? "" })}</p>
    </div>
  );
}

/** `value` is undefined until it is known. */
function Figure({ name, value, note }: { name: string; value: number | undefined; note?: string }) {
  return (
    <div class="card">
      <dt class="muted">{name}</dt>
      <dd>
        <span class={`figure-value${value === undefined ? " waiting" : ""}`}>
          {value === undefined ? "…" : formatNumber(value)}
        </span>
        {note && <p class="small muted">{note}</p>}
      </dd>
    </div>
  );
}

/** `now` is null until it is known. */
function Threshold({ now }: { now: Schemas["Balance"] | null }) {
  const [text, setText] = useState(now?.threshold == null ? "" : String(now.threshold));
  const { busy, error, submit } = useSending(async () => {
    const threshold = text.trim() === "" ? null : Number(text);
    balance.set(await call("patch", "/balance", { body: { threshold } }));
    say(threshold === null ? t("thresholdOff") : t("thresholdOn", { n: threshold }));
  });
  return (
    <form class="card stack tight" onSubmit={submit}>
      <h2>{t("lowBalance")}</h2>
      <Field
        label={t("tellBelow")}
        hint={t("tellBelowSays")}
        wrong={wrongOf(error, ["threshold"])["threshold"] ?? wrongOf(error, [])[""]}
      >
        {(control) => (
          <span class="row">
            <input
              {...control}
              class="short"
              type="text"
              inputMode="numeric"
              pattern="[0-9]*"
              disabled={now === null}
              value={text}
              onInput={(event) => setText(event.currentTarget.value)}
            />
            <button class="button" type="submit" aria-busy={busy} disabled={now === null}>
              {t("save")}
            </button>
          </span>
        )}
      </Field>
    </form>
  );
}

function Usage({ mark }: { mark: string }) {
  const usage = useLoad(
    "usage",
    (signal) => ask<{ items: UsageRow[] }>("get", "/usage?days=30", undefined, { signal }),
    mark,
  );
  const known = useLoad("models", (signal) => call("get", "/models", { signal }));
  const titles = new Map(known.data?.items.map((each) => [each.name, said(each.title)]));
  const [what, setWhat] = useState<"credits" | "predictions">("credits");
  return (
    <section class="card stack" aria-labelledby="usage">
      <div class="row apart">
        <h2 id="usage">{t("usage30")}</h2>
        <div class="tabs">
          {(["credits", "predictions"] as const).map((each) => (
            <button key={each} type="button" aria-pressed={what === each} onClick={() => setWhat(each)}>
              {t(each === "credits" ? "creditsSpent" : "predictions")}
            </button>
          ))}
        </div>
      </div>
      <Show loaded={usage} rows={5}>
        {({ items }) =>
          items.length === 0 ? (
            <p class="muted">{t("nothingAskedYet")}</p>
          ) : (
            <UsagePlot items={items} what={what} titles={titles} />
          )
        }
      </Show>
    </section>
  );
}

function UsagePlot({
  items,
  what,
  titles,
}: {
  items: readonly UsageRow[];
  what: "credits" | "predictions";
  /** By name; models that are no longer installed have none. */
  titles: ReadonlyMap<string, string>;
}) {
  const models = [...new Set(items.map((item) => item.model))].sort();
  const today = Math.floor(Date.now() / 86_400_000);
  const days = Array.from({ length: 30 }, (_, index) => today - 29 + index);
  const series = models.map((model) => ({
    name: titles.get(model) ?? model,
    values: days.map((day) =>
      items
        .filter((item) => item.model === model && Math.floor(Date.parse(item.day) / 86_400_000) === day)
        .reduce((sum, item) => sum + item[what], 0),
    ),
  }));
  const total = items.reduce((sum, item) => sum + item[what], 0);
  return (
    <div class="stack tight">
      <LazyPlot
        label={t("usagePlot", { n: total })}
        x={days}
        xNames={(day) => (Number.isInteger(day) ? formatDay(new Date(day * 86_400_000).toISOString()) : "")}
        series={series}
        bars={models.length === 1}
        whole
        height={220}
      />
      <p class="small muted">{t("inAllOf30", { total: formatNumber(total) })}</p>
    </div>
  );
}

function Statement({ mark }: { mark: string }) {
  const { query } = usePlace();
  const cursor = query.get("cursor") ?? "";
  const page = useLoad(
    `statement ${cursor}`,
    (signal) =>
      call("get", "/transactions", { query: { limit: PAGE, cursor: cursor ? Number(cursor) : undefined }, signal }),
    cursor ? "" : mark,
  );
  return (
    <section class="stack" aria-labelledby="statement">
      <h2 id="statement">{t("statement")}</h2>
      <Show loaded={page} rows={8}>
        {(data) =>
          data.items.length === 0 ? (
            <Empty>{t("noMovements")}</Empty>
          ) : (
            <>
              <Movements items={data.items} />
              <nav class="row apart" aria-label={t("pages")}>
                {cursor ? (
                  <a class="button" href="/ui/balance">
                    {t("newest")}
                  </a>
                ) : (
                  <span />
                )}
                {data.next_cursor && (
                  <a class="button" href={`/ui/balance${queryOf({ cursor: data.next_cursor })}`}>
                    {t("older")}
                  </a>
                )}
              </nav>
            </>
          )
        }
      </Show>
    </section>
  );
}

function Movements({ items }: { items: readonly Schemas["Transaction"][] }) {
  return (
    <Table
      labelled
      label={t("statement")}
      rows={items}
      id={(item) => item.id}
      columns={[
        {
          name: t("what"),
          cell: (item) => (
            <>
              {item.prediction_id ? (
                <a href={`/ui/predictions/${item.prediction_id}`}>{t(nameOf(item))}</a>
              ) : (
                <span>{t(nameOf(item))}</span>
              )}
              {noteOf(item) && <p class="small muted">{noteOf(item)}</p>}
            </>
          ),
        },
        { name: t("when"), cell: (item) => <Moment at={item.created_at} /> },
        { name: t("available"), cell: (item) => signed(item.available_change), right: true },
        {
          name: t("held"),
          cell: (item) => <span class="muted">{signed(item.held_change)}</span>,
          right: true,
        },
      ]}
    />
  );
}

function noteOf(item: Schemas["Transaction"]): string | null | undefined {
  const stars = starsOf(item);
  return stars === null ? (item.note ?? item.reference) : t("starsPaid", { n: stars });
}

function signed(change: number): string {
  return change === 0 ? "–" : change > 0 ? `+${formatNumber(change)}` : `−${formatNumber(-change)}`;
}
