import { useState } from "preact/hooks";
import { call, type Schemas } from "../api/client";
import { ActButton, Empty, Show } from "../parts/states";
import { Secret } from "../parts/copy";
import { Field, useSending, wrongOf } from "../parts/form";
import { Title } from "../parts/title";
import { useLoad } from "../state/load";
import { t } from "../words";
import { EventChoice, type EventTypes, State } from "./webhook_parts";

export function WebhooksPage() {
  const webhooks = useLoad("webhooks", (signal) => call("get", "/webhooks", { signal }));
  const [secret, setSecret] = useState<{ value: string; label: string } | null>(null);
  return (
    <>
      <Title text={t("webhooks")} />
      <div class="stack">
        <p class="muted">{t("webhooksSay")}</p>
        {secret && <Secret {...secret} />}
        <Show loaded={webhooks} rows={2}>
          {({ items }) =>
            items.length === 0 ? (
              <Empty>{t("noWebhooks")}</Empty>
            ) : (
              <ul class="stack">
                {items.map((webhook) => (
                  <WebhookCard key={webhook.id} webhook={webhook} />
                ))}
              </ul>
            )
          }
        </Show>
        <NewWebhook
          made={(webhook) => {
            setSecret({ value: webhook.secret, label: t("secretOf", { url: webhook.url }) });
            webhooks.reload();
          }}
        />
        <section class="card stack tight" aria-labelledby="once">
          <h2 id="once">{t("oncePredictions")}</h2>
          <p class="small muted">{t("onceSays")}</p>
          <div>
            <ActButton
              act={async () => {
                const { secret: value } = await call("post", "/webhooks/once/rotate");
                setSecret({ value, label: t("onceSecret") });
                scrollTo(0, 0);
              }}
            >
              {t("newSecret")}
            </ActButton>
          </div>
        </section>
      </div>
    </>
  );
}

function WebhookCard({ webhook }: { webhook: Schemas["Webhook"] }) {
  return (
    <li class="card row apart">
      <div class="grow">
        <a href={`/ui/webhooks/${webhook.id}`}>
          <code>{webhook.url}</code>
        </a>
        <p class="small muted">
          {webhook.description} {webhook.waiting > 0 && t("eventsWait", { n: webhook.waiting })}
        </p>
      </div>
      <State webhook={webhook} />
    </li>
  );
}

function NewWebhook({ made }: { made: (webhook: Schemas["CreatedWebhook"]) => void }) {
  const [url, setUrl] = useState("");
  const [description, setDescription] = useState("");
  const [events, setEvents] = useState<EventTypes>(null);
  const { busy, error, submit } = useSending(async () => {
    made(await call("post", "/webhooks", { body: { url, description, events } }));
    setUrl("");
    setDescription("");
    setEvents(null);
  });
  const wrong = wrongOf(error, ["url", "description", "events"]);
  return (
    <form class="card stack" onSubmit={submit}>
      <h2>{t("newWebhook")}</h2>
      <Field label={t("address")} hint={t("addressSays")} wrong={wrong["url"]}>
        {(control) => (
          <input
            {...control}
            type="url"
            required
            placeholder="https://example.com/hooks/foretell"
            value={url}
            onInput={(event) => setUrl(event.currentTarget.value)}
          />
        )}
      </Field>
      <Field
        label={
          <>
            {t("description")} <span class="optional">{t("optional")}</span>
          </>
        }
        wrong={wrong["description"]}
      >
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
      {(wrong[""] ?? wrong["events"]) && (
        <p class="wrong" role="alert">
          {wrong[""] ?? wrong["events"]}
        </p>
      )}
      <div>
        <button class="button main-action" type="submit" aria-busy={busy}>
          {t("makeWebhook")}
        </button>
      </div>
    </form>
  );
}
