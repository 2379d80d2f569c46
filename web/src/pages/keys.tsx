import { useState } from "preact/hooks";
import { call, type Schemas } from "../api/client";
import { Secret } from "../parts/copy";
import { Confirm } from "../parts/dialog";
import { Field, useSending, wrongOf } from "../parts/form";
import { Empty, Show } from "../parts/states";
import { Moment } from "../parts/status";
import { Table } from "../parts/table";
import { Title } from "../parts/title";
import { useLoad } from "../state/load";
import { t } from "../words";

export function KeysPage() {
  const keys = useLoad("keys", (signal) => call("get", "/api-keys", { signal }));
  const [made, setMade] = useState<Schemas["CreatedApiKey"] | null>(null);
  const [ending, setEnding] = useState<Schemas["ApiKey"] | null>(null);
  return (
    <>
      <Title text={t("keys")} />
      <div class="stack">
        <p class="muted">{t("keysSay")}</p>
        <NewKey
          made={(key) => {
            setMade(key);
            keys.reload();
          }}
        />
        {made && <Secret value={made.key} label={t("newKeyIs", { name: made.name })} />}
        <Show loaded={keys} rows={4}>
          {({ items }) =>
            items.length === 0 ? <Empty>{t("noKeys")}</Empty> : <KeyTable items={items} end={setEnding} />
          }
        </Show>
      </div>
      {ending && (
        <Confirm
          title={t("revokeKey", { name: ending.name })}
          action={t("revoke")}
          act={async () => {
            await call("delete", "/api-keys/{key_id}", { path: { key_id: ending.id } });
            if (made?.id === ending.id) setMade(null);
            keys.reload();
          }}
          close={() => setEnding(null)}
        >
          <p>{t("revokeSays")}</p>
        </Confirm>
      )}
    </>
  );
}

function NewKey({ made }: { made: (key: Schemas["CreatedApiKey"]) => void }) {
  const [name, setName] = useState("");
  const { busy, error, submit } = useSending(async () => {
    made(await call("post", "/api-keys", { body: { name } }));
    setName("");
  });
  const wrong = wrongOf(error, ["name"]);
  return (
    <form class="card" onSubmit={submit}>
      <Field label={t("nameOfKey")} hint={t("nameOfKeySays")} wrong={wrong["name"] ?? wrong[""]}>
        {(control) => (
          <span class="row">
            <input
              {...control}
              class="medium"
              type="text"
              required
              maxLength={100}
              value={name}
              onInput={(event) => setName(event.currentTarget.value)}
            />
            <button class="button main-action" type="submit" aria-busy={busy}>
              {t("makeKey")}
            </button>
          </span>
        )}
      </Field>
    </form>
  );
}

function KeyTable({ items, end }: { items: readonly Schemas["ApiKey"][]; end: (key: Schemas["ApiKey"]) => void }) {
  return (
    <Table
      labelled
      label={t("keys")}
      rows={items}
      id={(key) => key.id}
      columns={[
        { name: t("name"), cell: (key) => <strong>{key.name}</strong> },
        { name: t("beginsWith"), cell: (key) => <code>{key.prefix}…</code> },
        { name: t("made"), cell: (key) => <Moment at={key.created_at} /> },
        {
          name: t("lastUse"),
          cell: (key) =>
            key.last_used_at ? <Moment at={key.last_used_at} ago /> : <span class="muted">{t("never")}</span>,
        },
        {
          name: t("actions"),
          cell: (key) => (
            <button
              class="button little danger"
              type="button"
              aria-label={`${t("revoke")}: ${key.name}`}
              onClick={() => end(key)}
            >
              {t("revoke")}
            </button>
          ),
          right: true,
          unnamed: true,
        },
      ]}
    />
  );
}
