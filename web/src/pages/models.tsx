import { call, type Schemas } from "../api/client";
import { Empty, Show } from "../parts/states";
import { Title } from "../parts/title";
import { session } from "../state/session";
import { useLoad } from "../state/load";
import { useStore } from "../state/store";
import { said, t } from "../words";
import { Quality } from "./quality";

export function ModelsPage() {
  const models = useLoad("models", (signal) => call("get", "/models", { signal }));
  const now = useStore(session);
  return (
    <div class="stack">
      <Title text={t("models")} />
      {now.state === "out" && (
        <div class="card stack tight">
          <p>{t("welcome")}</p>
          <div class="row">
            <a class="button main-action" href="/ui/sign-up">
              {t("signUp")}
            </a>
            <a class="button" href="/ui/sign-in">
              {t("signIn")}
            </a>
          </div>
        </div>
      )}
      <Show loaded={models} rows={6}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty>{t("noModels")}</Empty>
          ) : (
            <ul class="cards">
              {items.map((model) => (
                <ModelCard key={model.name} model={model} />
              ))}
            </ul>
          )
        }
      </Show>
    </div>
  );
}

function ModelCard({ model }: { model: Schemas["Model"] }) {
  return (
    <li class="card stack model-card">
      <div class="row apart">
        <h2>
          <a href={`/ui/models/${encodeURIComponent(model.name)}`}>{said(model.title)}</a>
        </h2>
        <span class="chip accent">{t("credits", { n: model.price })}</span>
      </div>
      <p class="grow">{said(model.description)}</p>
      <Quality model={model} brief />
      <div class="row apart">
        <span class="small muted mono">
          {model.name} {model.version}
        </span>
        <a
          class="button"
          href={`/ui/models/${encodeURIComponent(model.name)}`}
          aria-label={`${t("tryIt")}: ${said(model.title)}`}
        >
          {t("tryIt")}
        </a>
      </div>
    </li>
  );
}
