import { useState } from "preact/hooks";
import { call, type Schemas } from "../api/client";
import { Confirm } from "../parts/dialog";
import { Field, useSending, wrongOf } from "../parts/form";
import { say } from "../parts/messages";
import { Empty, Show } from "../parts/states";
import { Moment } from "../parts/status";
import { Table } from "../parts/table";
import { useLoad } from "../state/load";
import { formatNumber, t, textOf } from "../words";
import { Journal } from "./journal";
import { Pager } from "./pager";
import { State } from "./state";

type Details = Schemas["OverseenUserDetails"];

export function Users() {
  const [typed, setTyped] = useState("");
  const [name, setName] = useState("");
  const [cursor, setCursor] = useState<string | null>(null);
  const page = useLoad(`users ${name} ${cursor ?? ""}`, (signal) =>
    call("get", "/admin/users", { query: { name: name || undefined, cursor: cursor ?? undefined, limit: 50 }, signal }),
  );
  return (
    <>
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault();
          setCursor(null);
          setName(typed);
        }}
      >
        <span class="pick">
          <label for="user-name" class="small">
            {t("username")}
          </label>
          <input id="user-name" type="search" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
        </span>
        <button class="button" type="submit">
          {textOf("o_search")}
        </button>
      </form>
      <Show loaded={page} rows={8}>
        {({ items, next_cursor: next }) =>
          items.length === 0 ? (
            <Empty>{textOf("o_noUsers")}</Empty>
          ) : (
            <>
              <Table
                labelled
                label={textOf("o_users")}
                rows={items}
                id={(each) => each.id}
                columns={[
                  {
                    name: t("username"),
                    cell: (each) => <a href={`/ui/operator/users/${each.id}`}>{each.username}</a>,
                  },
                  { name: t("role"), cell: (each) => t(each.role === "operator" ? "operator" : "customer") },
                  { name: textOf("o_state"), cell: (each) => <Active active={each.active} /> },
                  { name: t("memberSince"), cell: (each) => <Moment at={each.created_at} /> },
                  { name: t("available"), cell: (each) => formatNumber(each.available), right: true },
                  { name: t("held"), cell: (each) => formatNumber(each.held), right: true },
                ]}
              />
              <Pager first={cursor === null} next={next} go={setCursor} />
            </>
          )
        }
      </Show>
    </>
  );
}

function Active({ active }: { active: boolean }) {
  return <span class={`chip ${active ? "good" : "bad"}`}>{textOf(active ? "o_active" : "o_blocked")}</span>;
}

/** One user, and the actions that an operator may take. */
export function User({ id }: { id: string }) {
  const loaded = useLoad(`user ${id}`, (signal) =>
    call("get", "/admin/users/{user_id}", { path: { user_id: id }, signal }),
  );
  const [turn, setTurn] = useState(0);
  const changed = (details: Details): void => {
    loaded.put(details);
    setTurn(turn + 1);
    say(textOf("o_doneIt"));
  };
  return (
    <Show loaded={loaded} rows={8}>
      {(user) => (
        <>
          <section class="card stack">
            <div class="row apart">
              <h2>{user.username}</h2>
              <span class="row">
                {user.role === "operator" && <State state="operator" />}
                <Active active={user.active} />
              </span>
            </div>
            <dl class="facts">
              {(
                [
                  [t("available"), user.available],
                  [t("held"), user.held],
                  [t("predictions"), user.predictions],
                  [t("keys"), user.api_keys],
                  [t("sessions"), user.sessions],
                  [t("webhooks"), user.webhooks],
                  ["Telegram", user.chats],
                ] as const
              ).map(([name, value]) => (
                <>
                  <dt>{name}</dt>
                  <dd class="number">{formatNumber(value)}</dd>
                </>
              ))}
            </dl>
            <Steer user={user} changed={changed} />
          </section>
          <div class="two">
            <Grant user={user} changed={changed} />
            <Refund user={user} changed={changed} />
          </div>
          <h2>{textOf("o_journal")}</h2>
          <Journal key={turn} subject={`user:${user.id}`} />
        </>
      )}
    </Show>
  );
}

function Steer({ user, changed }: { user: Details; changed: (details: Details) => void }) {
  const [asking, setAsking] = useState<"role" | "block" | null>(null);
  const path = { user_id: user.id };
  const role = user.role === "operator" ? "user" : "operator";
  const act = async (): Promise<void> => {
    if (asking === "role") changed(await call("post", "/admin/users/{user_id}/role", { path, body: { role } }));
    else changed(await call("post", "/admin/users/{user_id}/block", { path, body: {} }));
  };
  const roleAction = textOf(role === "operator" ? "o_makeOperator" : "o_makeUser");
  return (
    <div class="row">
      <button class="button" type="button" onClick={() => setAsking("role")}>
        {roleAction}
      </button>
      {user.active ? (
        <button class="button danger" type="button" onClick={() => setAsking("block")}>
          {textOf("o_block")}
        </button>
      ) : (
        <button
          class="button"
          type="button"
          onClick={() => void call("post", "/admin/users/{user_id}/unblock", { path, body: {} }).then(changed)}
        >
          {textOf("o_unblock")}
        </button>
      )}
      {asking && (
        <Confirm
          title={textOf(asking === "role" ? "o_roleAsk" : "o_blockAsk", { name: user.username })}
          action={asking === "role" ? roleAction : textOf("o_block")}
          act={act}
          close={() => setAsking(null)}
        >
          <p>{textOf(asking === "role" ? "o_roleSays" : "o_blockSays")}</p>
        </Confirm>
      )}
    </div>
  );
}

function Grant({ user, changed }: { user: Details; changed: (details: Details) => void }) {
  const [credits, setCredits] = useState("");
  const [note, setNote] = useState("");
  const { busy, error, submit } = useSending(async () => {
    const body = { credits: Number(credits), note: note || null };
    changed(await call("post", "/admin/users/{user_id}/grant", { path: { user_id: user.id }, body }));
    setCredits("");
    setNote("");
  });
  const wrong = wrongOf(error, ["credits", "note"]);
  return (
    <form class="card stack" onSubmit={submit}>
      <h2>{textOf("o_grant")}</h2>
      <Text
        label={textOf("o_credits")}
        value={credits}
        change={setCredits}
        wrong={wrong["credits"] ?? wrong[""]}
        number
        required
      />
      <Text label={textOf("o_note")} value={note} change={setNote} wrong={wrong["note"]} />
      <div>
        <button class="button main-action" type="submit" aria-busy={busy}>
          {textOf("o_grant")}
        </button>
      </div>
    </form>
  );
}

function Refund({ user, changed }: { user: Details; changed: (details: Details) => void }) {
  const [prediction, setPrediction] = useState("");
  const [note, setNote] = useState("");
  const { busy, error, submit } = useSending(async () => {
    const body = { prediction_id: prediction.trim(), note: note || null };
    changed(await call("post", "/admin/users/{user_id}/refund", { path: { user_id: user.id }, body }));
    setPrediction("");
    setNote("");
  });
  const wrong = wrongOf(error, ["prediction_id", "note"]);
  return (
    <form class="card stack" onSubmit={submit}>
      <h2>{textOf("o_refund")}</h2>
      <Text
        label={textOf("o_refundId")}
        value={prediction}
        change={setPrediction}
        wrong={wrong["prediction_id"] ?? wrong[""]}
        required
      />
      <Text label={textOf("o_note")} value={note} change={setNote} wrong={wrong["note"]} />
      <div>
        <button class="button" type="submit" aria-busy={busy}>
          {textOf("o_refund")}
        </button>
      </div>
    </form>
  );
}

function Text(props: {
  label: string;
  value: string;
  change: (value: string) => void;
  wrong?: string;
  number?: boolean;
  required?: boolean;
}) {
  return (
    <Field label={props.label} wrong={props.wrong}>
      {(control) => (
        <input
          {...control}
          type="text"
          inputMode={props.number ? "numeric" : undefined}
          pattern={props.number ? "[0-9]*" : undefined}
          required={props.required}
          value={props.value}
          onInput={(event) => props.change(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}
