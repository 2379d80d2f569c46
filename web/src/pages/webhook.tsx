import { useEffect, useState } from "preact/hooks";
import type { PageProps } from "../app";
import { call, type Schemas } from "../api/client";
import { Secret } from "../parts/copy";
import { Confirm } from "../parts/dialog";
import { Field, useSending, wrongOf } from "../parts/form";
import { say } from "../parts/messages";
import { ActButton, Show } from "../parts/states";
import { Moment } from "../parts/status";
import { Table } from "../parts/table";
import { Title } from "../parts/title";
import { go } from "../router";
import { useLoad } from "../state/load";
import { formatSeconds, t, type Key } from "../words";
import { EventChoice, type EventTypes, State } from "./webhook_parts";

type Webhook = Schemas["Webhook"];
/** How often the visible log of deliveries is reloaded. */
const LOOK_EVERY_MS = 2000;

export function WebhookPage({ params }: { params: PageProps }) {
  const id = params["id"] ?? "";
  const loaded = useLoad(`webhook ${id}`, (signal) =>
    call("get", "/webhooks/{webhook_id}", { path: { webhook_id: id }, signal }),
  );
  return (
    <>
      <Title text={t("webhook")}>
        <a href="/ui/webhooks">{t("allWebhooks")}</a>
      </Title>
      <Show loaded={loaded} rows={8}>
        {(webhook) => <Shown webhook={webhook} put={loaded.put} reload={loaded.reload} />}
      </Show>
    </>
  );
}

function Shown({ webhook, put, reload }: { webhook: Webhook; put: (webhook: Webhook) => void; reload: () => void }) {
  const path = { webhook_id: webhook.id };
  const [secret, setSecret] = useState("");
  const [removing, setRemoving] = useState(false);
  const change = async (body: Schemas["WebhookChange"]): Promise<void> => {
    put(await call("patch", "/webhooks/{webhook_id}", { path, body }));
  };
  return (
    <>
      <section class="card stack">
        <div class="row apart">
          <code class="grow">{webhook.url}</code>
          <State webhook={webhook} />
        </div>
        {webhook.state === "disabled" && (
          <div class="notice bad">
            <strong>{t("webhookWasTurnedOff")}</strong>
            <p>{t(webhook.disabled_reason === "gone" ? "wasGoneWhy" : "wasFailingWhy")}</p>
          </div>
        )}
        {secret && <Secret value={secret} label={t("newSecretIs")} />}
        <div class="row">
          {webhook.state === "enabled" ? (
            <ActButton act={() => change({ state: "paused" })}>{t("pause")}</ActButton>
          ) : (
            <ActButton kind="main-action" act={() => change({ state: "enabled" })}>
              {t("turnOn")}
            </ActButton>
          )}
          <ActButton
            act={async () => {
              await call("post", "/webhooks/{webhook_id}/test", { path });
              say(t("testIsOnItsWay"));
            }}
          >
            {t("sendTest")}
          </ActButton>
          <ActButton
            act={async () => {
              setSecret((await call("post", "/webhooks/{webhook_id}/rotate", { path })).secret);
            }}
          >
            {t("newSecret")}
          </ActButton>
          <button class="button danger" type="button" onClick={() => setRemoving(true)}>
            {t("remove")}
          </button>
        </div>
      </section>
      <Edit key={webhook.id} webhook={webhook} change={change} />
      <Resend webhook={webhook} />
      <Deliveries webhook={webhook} reload={reload} />
      {removing && (
        <Confirm
          title={t("removeWebhook")}
          action={t("remove")}
          act={async () => {
            await call("delete", "/webhooks/{webhook_id}", { path });
            go("/webhooks");
          }}
          close={() => setRemoving(false)}
        >
          <p>{t("removeWebhookSays")}</p>
        </Confirm>
      )}
    </>
  );
}

function Edit({ webhook, change }: { webhook: Webhook; change: (body: Schemas["WebhookChange"]) => Promise<void> }) {
  const [url, setUrl] = useState(webhook.url);
  const [description, setDescription] = useState(webhook.description);
  const [events, setEvents] = useState<EventTypes>(webhook.events as EventTypes);
  const { busy, error, submit } = useSending(async () => {
    await change({ url, description, events });
    say(t("saved"));
  });
  const wrong = wrongOf(error, ["url", "description"]);
  return (
    <details class="card">
      <summary>{t("change")}</summary>
      <form class="stack" onSubmit={submit}>
        <Field label={t("address")} wrong={wrong["url"]}>
          {(control) => (
            <input
              {...control}
              type="url"
              required
              value={url}
              onInput={(event) => setUrl(event.currentTarget.value)}
            />
          )}
        </Field>
        <Field label={t("description")} wrong={wrong["description"]}>
          {(control) => (
            <input
              {...control}
              type="text"
              maxLength={200}
              value={description}
              onInput={(event) => setDescription(event.currentTarget.value)}
            />
          )}
        </Field>
        <EventChoice events={events} change={setEvents} />
        {wrong[""] && <p class="wrong">{wrong[""]}</p>}
        <div>
          <button class="button main-action" type="submit" aria-busy={busy}>
            {t("save")}
          </button>
        </div>
      </form>
    </details>
  );
}

function Resend({ webhook }: { webhook: Webhook }) {
  const [since, setSince] = useState("");
  const { busy, error, submit } = useSending(async () => {
    const { events } = await call("post", "/webhooks/{webhook_id}/redeliver", {
      path: { webhook_id: webhook.id },
      body: { since: new Date(since).toISOString() },
    });
    say(t("eventsGoOut", { n: events }));
  });
  const wrong = wrongOf(error, ["since"]);
  return (
    <details class="card">
      <summary>{t("sendAgainSince")}</summary>
      <form onSubmit={submit}>
        <Field label={t("since")} wrong={wrong["since"] ?? wrong[""]}>
          {(control) => (
            <span class="row">
              <input
                {...control}
                type="datetime-local"
                required
                value={since}
                onInput={(event) => setSince(event.currentTarget.value)}
              />
              <button class="button" type="submit" aria-busy={busy}>
                {t("sendAgain")}
              </button>
            </span>
          )}
        </Field>
      </form>
    </details>
  );
}

function Deliveries({ webhook, reload }: { webhook: Webhook; reload: () => void }) {
  const path = { webhook_id: webhook.id };
  const [cursors, setCursors] = useState<number[]>([]);
  const cursor = cursors.at(-1);
  const page = useLoad(`deliveries ${webhook.id} ${cursor ?? ""}`, (signal) =>
    call("get", "/webhooks/{webhook_id}/deliveries", { path, query: { limit: 20, cursor }, signal }),
  );
  useEffect(() => {
    if (cursor !== undefined) return undefined;
    const timer = setInterval(() => {
      if (document.hidden) return;
      page.reload();
      reload();
    }, LOOK_EVERY_MS);
    return () => clearInterval(timer);
    // eslint-disable-next-line react-hooks/exhaustive-deps -- both do the same at every drawing
  }, [cursor, webhook.id]);
  return (
    <section class="stack" aria-labelledby="deliveries">
      <h2 id="deliveries">{t("deliveries")}</h2>
      <Show loaded={page} rows={5}>
        {(data) =>
          data.items.length === 0 ? (
            <p class="muted">{t("noDeliveries")}</p>
          ) : (
            <>
              <DeliveryTable items={data.items} webhook={webhook} />
              <nav class="row apart" aria-label={t("pages")}>
                {cursor === undefined ? (
                  <span class="small muted">{t("isLive")}</span>
                ) : (
                  <button class="button" type="button" onClick={() => setCursors(cursors.slice(0, -1))}>
                    {t("newer")}
                  </button>
                )}
                {data.next_cursor && (
                  <button
                    class="button"
                    type="button"
                    onClick={() => setCursors([...cursors, Number(data.next_cursor)])}
                  >
                    {t("older")}
                  </button>
                )}
              </nav>
            </>
          )
        }
      </Show>
    </section>
  );
}

const COLORS = { delivered: "good", failed: "warn", given_up: "bad" };

function DeliveryTable({ items, webhook }: { items: readonly Schemas["Delivery"][]; webhook: Webhook }) {
  const sendAgain = async (sequence: number): Promise<void> => {
    const path = { webhook_id: webhook.id };
    await call("post", "/webhooks/{webhook_id}/redeliver", { path, body: { sequence } });
    say(t("eventsGoOut", { n: 1 }));
  };
  return (
    <Table
      labelled
      label={t("deliveries")}
      rows={items}
      id={(item) => item.id}
      columns={[
        {
          name: t("event"),
          cell: (item) => (
            <span>
              <span class="number">{item.sequence}</span> <code>{item.type}</code>
            </span>
          ),
        },
        {
          name: t("outcome"),
          cell: (item) => (
            <span>
              <span class={`chip ${COLORS[item.outcome]}`}>{t(`outcome_${item.outcome}` as Key)}</span>{" "}
              <span class="small muted">{t("attempt", { n: item.attempt })}</span>
            </span>
          ),
        },
        { name: t("answerWas"), cell: (item) => item.status_code ?? item.error },
        { name: t("when"), cell: (item) => <Moment at={item.at} /> },
        { name: t("took"), cell: (item) => formatSeconds(item.duration_ms / 1000), right: true },
        {
          name: t("actions"),
          cell: ({ type, sequence }) =>
            type !== "webhook.test" && (
              <ActButton kind="little" act={() => sendAgain(sequence)}>
                {t("sendAgain")}
              </ActButton>
            ),
          right: true,
          unnamed: true,
        },
      ]}
    />
  );
}
