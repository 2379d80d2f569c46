import { useState } from "preact/hooks";
import { call, type Schemas } from "../api/client";
import { Secret } from "../parts/copy";
import { Confirm } from "../parts/dialog";
import { Field, useSending, wrongOf } from "../parts/form";
import { Empty, Show } from "../parts/states";
import { Moment } from "../parts/status";
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
    <div class="table-frame">
      <table class="rows">
        <thead>
          <tr>
            <th scope="col">{t("name")}</th>
            <th scope="col">{t("beginsWith")}</th>
            <th scope="col">{t("made")}</th>
            <th scope="col">{t("lastUse")}</th>
            <th scope="col">
              <span class="unseen">{t("actions")}</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {items.map((key) => (
            <tr key={key.id}>
              <td>
                <strong>{key.name}</strong>
              </td>
              <td>
                <code>{key.prefix}…</code>
              </td>
              <td>
                <Moment at={key.created_at} />
              </td>
              <td>
                {key.last_used_at ? <Moment at={key.last_used_at} ago /> : <span class="muted">{t("never")}</span>}
              </td>
              <td class="to-right whole">
                <button
                  class="button little danger"
                  type="button"
                  aria-label={`${t("revoke")}: ${key.name}`}
                  onClick={() => end(key)}
                >
                  {t("revoke")}
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
