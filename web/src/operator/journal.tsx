import { useState } from "preact/hooks";
import { call } from "../api/client";
import { Empty, Show } from "../parts/states";
import { Moment } from "../parts/status";
import { Table } from "../parts/table";
import { useLoad } from "../state/load";
import { t, textOf } from "../words";
import { Pager } from "./pager";

/** The journal: who made which change. */
export function Journal({ subject }: { subject?: string }) {
  const [cursor, setCursor] = useState<string | null>(null);
  const page = useLoad(`journal ${subject ?? ""} ${cursor ?? ""}`, (signal) =>
    call("get", "/admin/journal", {
      query: { subject, cursor: cursor === null ? undefined : Number(cursor), limit: 50 },
      signal,
    }),
  );
  return (
    <Show loaded={page} rows={6}>
      {({ items, next_cursor: next }) =>
        items.length === 0 ? (
          <Empty>{textOf("o_noActs")}</Empty>
        ) : (
          <>
            <Table
              labelled
              label={textOf("o_journal")}
              rows={items}
              id={(each) => each.id}
              columns={[
                { name: t("when"), cell: (each) => <Moment at={each.at} /> },
                { name: textOf("o_who"), cell: (each) => each.operator },
                { name: textOf("o_act"), cell: (each) => <code>{each.act}</code> },
                { name: t("what"), cell: (each) => <Subject subject={each.subject} /> },
                { name: textOf("o_before"), cell: (each) => <Values values={each.before} /> },
                { name: textOf("o_after"), cell: (each) => <Values values={each.after} /> },
              ]}
            />
            <Pager first={cursor === null} next={next} go={setCursor} />
          </>
        )
      }
    </Show>
  );
}

/** What an action was about; an account leads to its page. */
function Subject({ subject }: { subject: string }) {
  const user = /^user:(.+)$/.exec(subject)?.[1];
  const text = <code>{subject}</code>;
  return user ? <a href={`/ui/operator/users/${encodeURIComponent(user)}`}>{text}</a> : text;
}

function Values({ values }: { values: Record<string, unknown> | null }) {
  if (!values) return <span class="muted">–</span>;
  return (
    <code class="small">
      {Object.entries(values)
        .map(([name, value]) => `${name}: ${JSON.stringify(value)}`)
        .join(", ")}
    </code>
  );
}
