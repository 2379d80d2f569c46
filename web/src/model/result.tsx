import type { Schemas } from "../api/client";
import { Bars, Gauge } from "../parts/gauge";
import { Status } from "../parts/status";
import "../styles/result.css";
import { formatMoment, formatSeconds, t, textOf } from "../words";
import { readAnswer } from "./answer";

export type Model = Schemas["Model"];
/** `queue` is the place in the queue, if the API returns one. */
export type Prediction = Schemas["Prediction"] & Pick<Partial<Schemas["PredictionDetails"]>, "queue">;

/** A prediction: its state or result, its price and its duration. */
export function Result({ prediction, model }: { prediction: Prediction; model: Model | undefined }) {
  return (
    <div class="stack">
      {prediction.status === "queued" && <Queued prediction={prediction} />}
      {prediction.status === "succeeded" && <Output model={model} output={prediction.output} />}
      {prediction.status === "failed" && <Failed prediction={prediction} />}
      {prediction.status === "canceled" && (
        <div class="notice">
          <strong>{t("status_canceled")}</strong>
          <p>{t("creditsCameBack")}</p>
        </div>
      )}
      <Timeline prediction={prediction} />
      <dl class="facts">
        <dt>{t("status")}</dt>
        <dd>
          <Status status={prediction.status} />
        </dd>
        <dt>{t("cost")}</dt>
        <dd class="number">{costOf(prediction)}</dd>
        <dt>{t("version")}</dt>
        <dd class="mono">
          {prediction.model} {prediction.version}
        </dd>
        {prediction.worker_id && (
          <>
            <dt>{t("worker")}</dt>
            <dd class="mono">{prediction.worker_id}</dd>
          </>
        )}
        <dt>{t("asked")}</dt>
        <dd class="number">{formatMoment(prediction.created_at, true)}</dd>
      </dl>
    </div>
  );
}

function costOf(prediction: Prediction): string {
  if (prediction.status === "succeeded") return t("credits", { n: prediction.price });
  if (prediction.status === "queued") return t("creditsHeld", { n: prediction.price });
  return t("nothing");
}

/** The result in one sentence, for screen readers. */
export function spoken(prediction: Prediction, model: Model | undefined): string {
  if (prediction.status === "succeeded") {
    const answer = readAnswer(model, prediction.output);
    return t("resultIs", { result: answer.label ?? t("status_succeeded") });
  }
  return prediction.status === "queued" ? "" : `${t("status")}: ${textOf(`status_${prediction.status}`)}`;
}

function Queued({ prediction }: { prediction: Prediction }) {
  const ahead = prediction.queue?.ahead;
  const wait = prediction.queue?.expected_wait_s;
  return (
    <div class="notice">
      <div class="row">
        <span class="spinner" aria-hidden="true" />
        <strong>{prediction.started_at ? t("isRunning") : t("isQueued")}</strong>
      </div>
      {ahead != null && ahead > 0 && <p>{t("ahead", { n: ahead })}</p>}
      {wait != null && wait >= 1 && <p>{t("expectedWait", { time: formatSeconds(wait) })}</p>}
      <p class="small muted">{t("mayLeave")}</p>
    </div>
  );
}

function Failed({ prediction }: { prediction: Prediction }) {
  const { error } = prediction;
  return (
    <div class="notice bad">
      <strong>{error ? textOf(`failure_${error.code}`, {}, t("status_failed")) : t("status_failed")}</strong>
      {error && <p>{error.message}</p>}
      <p class="small muted">{t("creditsCameBack")}</p>
    </div>
  );
}

function Output({ model, output }: { model: Model | undefined; output: unknown }) {
  const answer = readAnswer(model, output);
  const { probability } = answer;
  return (
    <>
      <div class={probability ? "result-top" : ""}>
        {answer.label !== null && (
          <div>
            <p class="small muted">{t("result")}</p>
            <p class="result-label">{answer.label}</p>
          </div>
        )}
        {probability && (
          <div>
            <Gauge value={probability.value} label={probability.name} />
            <p class="small muted">{probability.name}</p>
          </div>
        )}
      </div>
      {answer.classes.length > 0 && <Bars bars={answer.classes} label={t("classes")} />}
      {answer.rest.length > 0 && (
        <dl class="facts">
          {answer.rest.map((each) => (
            <>
              <dt>{each.name}</dt>
              <dd class={each.text.length > 60 ? "mono" : "number"}>
                {each.text.includes("\n") ? <pre tabIndex={0}>{each.text}</pre> : each.text}
              </dd>
            </>
          ))}
        </dl>
      )}
    </>
  );
}

/** Waiting and running time as bars, to scale. */
function Timeline({ prediction }: { prediction: Prediction }) {
  const { waiting_s: waited, running_s: ran, total_s: total } = prediction.timings ?? {};
  if (waited == null || ran == null || total == null) return null;
  const share = total > 0 ? Math.max(0, Math.min(1, waited / total)) : 0;
  return (
    <div class="stack tight">
      <div
        class="timeline"
        role="img"
        aria-label={t("timelineSays", { waited: formatSeconds(waited), ran: formatSeconds(ran) })}
      >
        <span class="queue" style={{ width: `${share * 100}%` }} />
        <span class="model" style={{ width: `${(1 - share) * 100}%` }} />
      </div>
      <p class="row small">
        <span>
          <span class="key-dot queue" aria-hidden="true" />
          {t("inQueue")} <span class="number">{formatSeconds(waited)}</span>
        </span>
        <span>
          <span class="key-dot model" aria-hidden="true" />
          {t("inModel")} <span class="number">{formatSeconds(ran)}</span>
        </span>
        <span class="muted">
          {t("inAll")} <span class="number">{formatSeconds(total)}</span>
        </span>
      </p>
    </div>
  );
}
