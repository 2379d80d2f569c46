import type { Schemas } from "../api/client";
import { t, type Key } from "../words";

export type EventTypes = Schemas["NewWebhook"]["events"];
const TYPES = ["prediction.finished", "balance.low", "endpoint.disabled"] as const;

/** The state of an endpoint, with the reason if it was turned off. */
export function State({ webhook }: { webhook: Schemas["Webhook"] }) {
  if (webhook.state === "disabled")
    return <span class="chip bad">{t(webhook.disabled_reason === "gone" ? "wasGone" : "wasFailing")}</span>;
  if (webhook.state === "paused") return <span class="chip">{t("isPaused")}</span>;
  return webhook.failing_since ? (
    <span class="chip warn">{t("isFailing")}</span>
  ) : (
    <span class="chip good">{t("isOn")}</span>
  );
}

export function EventChoice({ events, change }: { events: EventTypes; change: (events: EventTypes) => void }) {
  const chosen = events ?? [];
  return (
    <fieldset class="stack tight">
      <legend>{t("whichEvents")}</legend>
      <label class="check">
        <input
          type="checkbox"
          checked={events == null}
          onChange={(event) => change(event.currentTarget.checked ? null : [...TYPES])}
        />
        {t("allEvents")}
      </label>
      {events != null &&
        TYPES.map((type) => (
          <label key={type} class="check">
            <input
              type="checkbox"
              checked={chosen.includes(type)}
              onChange={(event) => {
                const next = event.currentTarget.checked ? [...chosen, type] : chosen.filter((each) => each !== type);
                change(next.length ? next : null);
              }}
            />
            {t(`event_${type}` as Key)}
          </label>
        ))}
    </fieldset>
  );
}
