import { useEffect, useRef, useState } from "preact/hooks";
import type { PageProps } from "../app";
import { call, type Schemas } from "../api/client";
import { writeJson } from "../api/json";
import { Problem } from "../api/problem";
import { Ask, draftsOf, orderOf, type Drafts, type Model } from "../model/ask";
import { useFollowed } from "../model/follow";
import { keepForm, keptForm } from "../model/kept";
import { Result, spoken } from "../model/result";
import { Snippets } from "../model/snippets";
import { Failure, Show } from "../parts/states";
import { Title } from "../parts/title";
import { go, usePlace } from "../router";
import { useLoad } from "../state/load";
import { session } from "../state/session";
import { useStore } from "../state/store";
import { said, t } from "../words";
import { Pick } from "../parts/pick";
import { Quality } from "./quality";
import { WhatIf } from "../model/what_if";

/** Try a model. The address names the prediction to show (`?prediction=ID`) or to repeat (`?again=ID`). */
export function ModelPage({ params }: { params: PageProps }) {
  const name = params["name"] ?? "";
  const { query } = usePlace();
  const version = query.get("version") ?? undefined;
  const model = useLoad(`model ${name} ${version ?? ""}`, (signal) =>
    call("get", "/models/{name}", { path: { name }, query: { version }, signal }),
  );
  return (
    <>
      <Title text={model.data ? said(model.data.title) : readable(name)} />
      <Show loaded={model} rows={8} fail={(error, retry) => <NoModel name={name} error={error} retry={retry} />}>
        {(data) => <Try key={`${data.name} ${data.version}`} model={data} />}
      </Show>
    </>
  );
}

function NoModel({ name, error, retry }: { name: string; error: unknown; retry: () => void }) {
  // An invalid name gets 422, an unknown one 404; both mean the same to the user.
  const absent = error instanceof Problem && (error.status === 404 || error.status === 422);
  const toModels = (
    <a class="button" href="/ui/models">
      {t("toModels")}
    </a>
  );
  return (
    <Failure
      error={error}
      retry={retry}
      says={absent ? t("noSuchModel", { name: readable(name) }) : undefined}
      wayOut={toModels}
    />
  );
}

/** A name from an address, with invisible characters percent-encoded. */
function readable(name: string): string {
  return name.replace(/\p{C}/gu, (character) => encodeURIComponent(character));
}

function Try({ model }: { model: Model }) {
  const { query } = usePlace();
  const now = useStore(session);
  const shown = query.get("prediction");
  const again = query.get("again") ?? shown;
  const [kept] = useState(() => keptForm(model));
  const [drafts, setDrafts] = useState<Drafts>(() => kept?.drafts ?? draftsOf(model.fields, {}));
  /** The text in the JSON editor while it is open, else null. */
  const [json, setJson] = useState(kept?.json ?? null);
  const filled = useRef(kept?.filled ?? null);
  useEffect(() => keepForm(model, { drafts, json, filled: filled.current }), [model, drafts, json]);
  // Fill the form with the input of the prediction once; the user may then change it.
  useEffect(() => {
    if (!again || filled.current === again || now.state !== "in") return;
    filled.current = again;
    void call("get", "/predictions/{prediction_id}", { path: { prediction_id: again } })
      .then((prediction) => {
        const input: unknown = prediction.input ?? prediction.features;
        if (prediction.model !== model.name) return;
        setDrafts(draftsOf(model.fields, input));
        setJson((now) => (now === null ? now : writeJson(input, 2)));
      })
      .catch(() => undefined);
  }, [again, now.state, model]);
  const asked = (id: string): void => {
    filled.current = id;
    keepForm(model, { drafts, json, filled: id });
    const version = query.get("version");
    go(`/models/${encodeURIComponent(model.name)}?${version ? `version=${version}&` : ""}prediction=${id}`, {
      keepScroll: true,
    });
  };
  return (
    <>
      <About model={model} />
      <div class="two">
        <Ask model={model} drafts={drafts} change={setDrafts} json={json} changeJson={setJson} asked={asked} />
        <div class="stack">
          {shown && now.state !== "out" ? <Answered id={shown} model={model} /> : <NothingYet />}
          <Snippets order={orderOf(model, drafts, json)} canMakeKey={now.state === "in"} />
        </div>
      </div>
      {now.state !== "out" && <WhatIf model={model} drafts={drafts} />}
    </>
  );
}

function About({ model }: { model: Schemas["Model"] }) {
  return (
    <div class="stack tight">
      <p>{said(model.description)}</p>
      <div class="row apart">
        <Quality model={model} />
        {model.versions.length > 1 && (
          <Pick
            label={t("version")}
            value={model.version}
            options={model.versions.map((each) => [each, each])}
            pick={(version) => go(`/models/${encodeURIComponent(model.name)}?version=${encodeURIComponent(version)}`)}
          />
        )}
      </div>
    </div>
  );
}

function NothingYet() {
  return (
    <section class="card" aria-labelledby="answer">
      <h2 id="answer">{t("result")}</h2>
      <p class="muted">{t("nothingAskedYet")}</p>
    </section>
  );
}

function Answered({ id, model }: { id: string; model: Model }) {
  const followed = useFollowed(id);
  const section = useRef<HTMLElement>(null);
  // On a narrow screen the answer is below the form, so scroll to it.
  useEffect(() => {
    const box = section.current;
    if (box && box.getBoundingClientRect().top > innerHeight * 0.8) box.scrollIntoView({ block: "start" });
  }, [id]);
  return (
    <section class="card stack" aria-labelledby="answer" ref={section}>
      <div class="row apart">
        <h2 id="answer">{t("result")}</h2>
        <a href={`/ui/predictions/${id}`}>{t("itsPage")}</a>
      </div>
      <p class="unseen" role="status">
        {followed.data && spoken(followed.data, model)}
      </p>
      <Show loaded={followed} rows={5}>
        {(prediction) => <Result prediction={prediction} model={model} />}
      </Show>
    </section>
  );
}
