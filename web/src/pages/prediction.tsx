import type { PageProps } from "../app";
import { call } from "../api/client";
import { writeJson } from "../api/json";
import { Problem } from "../api/problem";
import { CancelButton } from "../model/cancel";
import { useFollowed, type Details } from "../model/follow";
import { Result, spoken } from "../model/result";
import { Snippets } from "../model/snippets";
import { CopyButton } from "../parts/copy";
import { Failure, Show } from "../parts/states";
import { Title } from "../parts/title";
import { useLoad } from "../state/load";
import { said, t } from "../words";

/** One prediction at its own address. */
export function PredictionPage({ params }: { params: PageProps }) {
  const id = params["id"] ?? "";
  const followed = useFollowed(id);
  return (
    <>
      <Title text={t("prediction")}>
        <span class="row">
          <code class="small muted">{id}</code>
          <CopyButton text={location.href} label={t("copyAddress")} />
        </span>
      </Title>
      <Show
        loaded={followed}
        rows={8}
        fail={(error, retry) => (
          <Failure
            error={error}
            retry={retry}
            says={error instanceof Problem && error.status === 422 ? t("nothingHere") : undefined}
            wayOut={
              <a class="button" href="/ui/history">
                {t("toHistory")}
              </a>
            }
          />
        )}
      >
        {(prediction) => <Shown prediction={prediction} reload={followed.reload} />}
      </Show>
    </>
  );
}

function Shown({ prediction, reload }: { prediction: Details; reload: () => void }) {
  const model = useLoad(`model ${prediction.model} ${prediction.version}`, async (signal) => {
    const path = { name: prediction.model };
    try {
      return await call("get", "/models/{name}", { path, query: { version: prediction.version }, signal });
    } catch {
      // If the version was removed, use the labels of the default one.
      return await call("get", "/models/{name}", { path, signal }).catch(() => null);
    }
  });
  const known = model.data ?? undefined;
  const input: unknown = prediction.input ?? prediction.features;
  return (
    <div class="two">
      <section class="card stack" aria-labelledby="answer">
        <h2 id="answer">{known ? said(known.title) : prediction.model}</h2>
        <p class="unseen" role="status">
          {spoken(prediction, known)}
        </p>
        <Result prediction={prediction} model={known} />
        <div class="row">
          <a
            class="button main-action"
            href={`/ui/models/${encodeURIComponent(prediction.model)}?again=${prediction.id}`}
          >
            {t("askAgain")}
          </a>
          {prediction.status === "queued" && <CancelButton id={prediction.id} done={reload} />}
        </div>
      </section>
      <div class="stack">
        <section class="card stack" aria-labelledby="input">
          <h2 id="input">{prediction.features == null ? t("yourInput") : t("features")}</h2>
          <pre tabIndex={0} aria-labelledby="input">
            {writeJson(input, 2)}
          </pre>
        </section>
        {prediction.input != null && <Snippets order={{ model: prediction.model, input }} canMakeKey />}
      </div>
    </div>
  );
}
