import { useEffect, useRef } from "preact/hooks";
import { onChanged } from "../api/events";
import { ask, call, queryOf, type Schemas } from "../api/client";
import { Problem } from "../api/problem";
import { readAnswer } from "../model/answer";
import { CancelButton } from "../model/cancel";
import { Download } from "../parts/download";
import { Pick } from "../parts/pick";
import { Empty, Failure, Show } from "../parts/states";
import { Credits, Moment, Status } from "../parts/status";
import { Table } from "../parts/table";
import { Title } from "../parts/title";
import { go, usePlace } from "../router";
import { useLoad } from "../state/load";
import { formatSeconds, said, t } from "../words";

type Prediction = Schemas["Prediction"];
type Models = ReadonlyMap<string, Schemas["Model"]>;

const PAGE = 25;
const STATUSES = ["queued", "succeeded", "failed", "canceled"] as const;
const SPANS: Record<string, number> = { hour: 3600, day: 86_400, week: 604_800, month: 2_592_000 };

export function HistoryPage() {
  const { query } = usePlace();
  const model = query.get("model") ?? "";
  const status = query.get("status") ?? "";
  const span = query.get("span") ?? "";
  const cursor = query.get("cursor") ?? "";
  const models = useLoad("models", (signal) => call("get", "/models", { signal }));
  const known: Models = new Map(models.data?.items.map((each) => [each.name, each]));
  const filters = { model, status, since: sinceOf(span) };
  const page = useLoad(`history ${model} ${status} ${span} ${cursor}`, (signal) =>
    ask<Schemas["PredictionPage"]>("get", `/predictions${queryOf({ ...filters, cursor, limit: PAGE })}`, undefined, {
      signal,
    }),
  );
  useLive(page.reload);
  const set = (changed: Record<string, string>): void => {
    const next = queryOf({ model, status, span, ...changed });
    go(`/history${next}`, { replace: true, keepScroll: true });
  };
  const filtered = model || status || span;
  return (
    <>
      <Title text={t("history")}>
        {unfitOf(page.error).length === 0 && (
          <Download kind="little" url={`/predictions.csv${queryOf(filters)}`} name="predictions.csv">
            {t("asCsv")}
          </Download>
        )}
      </Title>
      <div class="filters" role="group" aria-label={t("filters")}>
        <Pick
          label={t("model")}
          value={model}
          options={[["", t("all")], ...[...known.values()].map((each) => [each.name, said(each.title)] as const)]}
          pick={(value) => set({ model: value })}
        />
        <Pick
          label={t("status")}
          value={status}
          options={[["", t("all")], ...STATUSES.map((each) => [each, t(`status_${each}`)] as const)]}
          pick={(value) => set({ status: value })}
        />
        <Pick
          label={t("time")}
          value={span}
          options={[
            ["", t("all")],
            ["hour", t("lastHour")],
            ["day", t("lastDay")],
            ["week", t("lastWeek")],
            ["month", t("lastMonth")],
          ]}
          pick={(value) => set({ span: value })}
        />
      </div>
      <Show
        loaded={page}
        rows={10}
        fail={(error, retry) => <UnfitFilter error={error} retry={retry} given={{ model, status, span, cursor }} />}
      >
        {(data) =>
          data.items.length === 0 ? (
            <Empty
              action={
                filtered || cursor ? (
                  <a class="button" href="/ui/history">
                    {t("showAll")}
                  </a>
                ) : (
                  <a class="button main-action" href="/ui/models">
                    {t("toModels")}
                  </a>
                )
              }
            >
              {filtered || cursor ? t("nothingFits") : t("nothingAskedYet")}
            </Empty>
          ) : (
            <>
              <Rows items={data.items} models={known} reload={page.reload} />
              <nav class="row apart" aria-label={t("pages")}>
                {cursor ? (
                  <button class="button" type="button" onClick={() => set({ cursor: "" })}>
                    {t("newest")}
                  </button>
                ) : (
                  <span class="small muted">{t("isLive")}</span>
                )}
                {data.next_cursor && (
                  <a class="button" href={`/ui/history${queryOf({ model, status, span, cursor: data.next_cursor })}`}>
                    {t("older")}
                  </a>
                )}
              </nav>
            </>
          )
        }
      </Show>
    </>
  );
}

/** The error of an invalid filter in the address: names it, and links to the page without it. */
function UnfitFilter({
  error,
  retry,
  given,
}: {
  error: unknown;
  retry: () => void;
  given: Readonly<Record<"model" | "status" | "span" | "cursor", string>>;
}) {
  const unfit = unfitOf(error);
  if (unfit.length === 0) return <Failure error={error} retry={retry} />;
  const names = { model: t("model"), status: t("status"), span: t("time"), cursor: t("pages") };
  const kept = Object.fromEntries(Object.entries(given).filter(([name]) => !(unfit as string[]).includes(name)));
  return (
    <Failure
      error={error}
      says={unfit.map((name) => t("noSuchValue", { name: names[name], value: given[name] })).join(" ")}
      wayOut={
        <a class="button" href={`/ui/history${queryOf(kept)}`}>
          {t("dropFilter")}
        </a>
      }
    />
  );
}

function unfitOf(error: unknown): ("model" | "status" | "span" | "cursor")[] {
  if (!(error instanceof Problem) || error.status !== 422) return [];
  return error.errors.flatMap(({ parameter }) =>
    parameter === "model" || parameter === "status" || parameter === "cursor"
      ? [parameter]
      : parameter === "since"
        ? ["span" as const]
        : [],
  );
}

/** Rounded to a minute, so that the same page keeps the same address for a while. */
function sinceOf(span: string): string | undefined {
  const seconds = SPANS[span];
  if (!seconds) return undefined;
  return new Date(Math.floor(Date.now() / 60_000) * 60_000 - seconds * 1000).toISOString();
}

function useLive(reload: () => void): void {
  const latest = useRef(reload);
  latest.current = reload;
  useEffect(() => onChanged(() => latest.current()), []);
}

function Rows({ items, models, reload }: { items: readonly Prediction[]; models: Models; reload: () => void }) {
  return (
    <Table
      kind="history"
      label={t("history")}
      rows={items}
      id={(each) => each.id}
      columns={[
        {
          name: t("model"),
          cell: (each) => {
            const model = models.get(each.model);
            return <a href={`/ui/predictions/${each.id}`}>{model ? said(model.title) : each.model}</a>;
          },
        },
        {
          name: t("result"),
          cell: (each) =>
            each.status === "succeeded" ? (
              <strong>{shortly(models.get(each.model), each.output)}</strong>
            ) : (
              each.error?.message
            ),
        },
        { name: t("status"), cell: (each) => <Status status={each.status} /> },
        { name: t("asked"), cell: (each) => <Moment at={each.created_at} /> },
        {
          name: t("took"),
          cell: (each) => (each.timings?.total_s == null ? "" : formatSeconds(each.timings.total_s)),
          right: true,
        },
        {
          name: t("cost"),
          cell: (each) => (each.status === "succeeded" ? <Credits n={each.price} /> : <span class="muted">–</span>),
          right: true,
        },
        {
          name: t("actions"),
          cell: (each) =>
            each.status === "queued" ? (
              <CancelButton id={each.id} done={reload} little />
            ) : (
              <a class="button little quiet" href={`/ui/models/${encodeURIComponent(each.model)}?again=${each.id}`}>
                {t("again")}
              </a>
            ),
          right: true,
          unnamed: true,
        },
      ]}
    />
  );
}

/** A short form of an answer. */
function shortly(model: Schemas["Model"] | undefined, output: unknown): string {
  const answer = readAnswer(model, output);
  return answer.label ?? answer.rest[0]?.text.slice(0, 60) ?? "";
}
