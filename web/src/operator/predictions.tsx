import { useState } from "preact/hooks";
import { call } from "../api/client";
import { Pick } from "../parts/pick";
import { Empty, Show } from "../parts/states";
import { Moment, Status } from "../parts/status";
import { Table } from "../parts/table";
import { useLoad } from "../state/load";
import { said, t, textOf } from "../words";
import { Pager } from "./pager";

type Which = "queued" | "succeeded" | "failed" | "canceled";
const STATUSES: readonly Which[] = ["queued", "succeeded", "failed", "canceled"];

/** Predictions of all accounts, without inputs and outputs. */
export function Predictions() {
  const [status, setStatus] = useState("");
  const [model, setModel] = useState("");
  const [cursor, setCursor] = useState<string | null>(null);
  const models = useLoad("models", (signal) => call("get", "/models", { signal }));
  const page = useLoad(`all predictions ${model} ${status} ${cursor ?? ""}`, (signal) =>
    call("get", "/admin/predictions", {
      query: {
        model: model || undefined,
        status: (status || undefined) as Which | undefined,
        cursor: cursor ?? undefined,
        limit: 50,
      },
      signal,
    }),
  );
  return (
    <>
      <div class="filters">
        <Pick
          label={t("model")}
          value={model}
          options={[
            ["", t("all")],
            ...(models.data?.items ?? []).map((each) => [each.name, said(each.title)] as const),
          ]}
          pick={(value) => {
            setCursor(null);
            setModel(value);
          }}
        />
        <Pick
          label={t("status")}
          value={status}
          options={[["", t("all")], ...STATUSES.map((each) => [each, t(`status_${each}`)] as const)]}
          pick={(value) => {
            setCursor(null);
            setStatus(value);
          }}
        />
      </div>
      <Show loaded={page} rows={10}>
        {({ items, next_cursor: next }) => (
          <>
            {items.length === 0 ? (
              <Empty>{t("nothingFits")}</Empty>
            ) : (
              <Table
                labelled
                label={textOf("o_predictions")}
                rows={items}
                id={(each) => each.id}
                columns={[
                  { name: "id", cell: (each) => <code>{each.id}</code> },
                  {
                    name: textOf("o_user"),
                    cell: (each) => <a href={`/ui/operator/users/${each.user_id}`}>{each.username}</a>,
                  },
                  { name: t("model"), cell: (each) => `${each.model} ${each.version}` },
                  { name: t("status"), cell: (each) => <Status status={each.status} /> },
                  { name: t("asked"), cell: (each) => <Moment at={each.created_at} /> },
                  { name: textOf("o_why"), cell: (each) => each.error_code ?? "" },
                  { name: t("worker"), cell: (each) => <code>{each.worker_id}</code> },
                ]}
              />
            )}
            <Pager first={cursor === null} next={next ?? null} go={setCursor} />
          </>
        )}
      </Show>
    </>
  );
}
