import { useId, useState } from "preact/hooks";
import { call, type Schemas } from "../api/client";
import { useSending, wrongOf, Field } from "../parts/form";
import { say } from "../parts/messages";
import { ActButton, Show } from "../parts/states";
import { useLoad } from "../state/load";
import { formatPercent, said, textOf } from "../words";
import { Comparison } from "./comparison";
import { Upload } from "./upload";

type Model = Schemas["OverseenModel"];

export function Models() {
  const models = useLoad("operator models", (signal) => call("get", "/admin/models", { signal }));
  return (
    <>
      <div class="row">
        <ActButton
          act={async () => {
            await call("post", "/admin/models/reload");
            say(textOf("o_reloaded"));
            models.reload();
          }}
        >
          {textOf("o_reload")}
        </ActButton>
      </div>
      <Show loaded={models} rows={6}>
        {({ items }) => (
          <>
            {items.map((model) => (
              <ModelCard key={model.name} model={model} changed={models.reload} />
            ))}
          </>
        )}
      </Show>
      {/* Only below the list: it would be pushed away. */}
      {(models.data ?? models.error) !== undefined && <Upload installed={models.reload} />}
    </>
  );
}

function ModelCard({ model, changed }: { model: Model; changed: () => void }) {
  return (
    <section class="card stack">
      <div class="row apart">
        <h2>{said(model.title)}</h2>
        <code>
          {model.name} {model.default_version}
        </code>
      </div>
      <div class="two">
        {model.versions.length === 1 && !model.versions[0]?.shadow ? (
          <div class="stack tight">
            <h3>{textOf("o_division")}</h3>
            <p class="muted">{textOf("o_oneVersion", { version: model.default_version })}</p>
          </div>
        ) : (
          <Traffic key={model.models_stamp} model={model} changed={changed} />
        )}
        <Price key={model.models_stamp} model={model} changed={changed} />
      </div>
      <Comparison model={model} />
    </section>
  );
}

/** Sliders for the share of the traffic of each version, which add up to 100 %. */
function Traffic({ model, changed }: { model: Model; changed: () => void }) {
  const id = useId();
  const [weights, setWeights] = useState<Record<string, number>>(() =>
    Object.fromEntries(
      model.versions.map((each) => [each.version, each.weight ?? (each.version === model.default_version ? 1 : 0)]),
    ),
  );
  const [shadow, setShadow] = useState(model.versions.filter((each) => each.shadow).map((each) => each.version));
  const total = Object.values(weights).reduce((sum, weight) => sum + weight, 0);
  const { busy, error, submit } = useSending(async () => {
    const given = Object.entries(weights).filter(([, weight]) => weight > 0);
    const alone = given.length === 1 ? given[0]?.[0] : undefined;
    const body = alone
      ? { default: alone, weights: {}, shadow }
      : { default: null, weights: Object.fromEntries(given), shadow };
    await call("put", "/admin/models/{name}/traffic", { path: { name: model.name }, body });
    say(textOf("o_doneIt"));
    changed();
  });
  const wrong = Object.values(wrongOf(error, []))[0];
  return (
    <form class="stack tight" onSubmit={submit}>
      <h3>{textOf("o_division")}</h3>
      {model.versions.map(({ version }) => (
        <div key={version} class="field">
          <label for={`${id}${version}`}>{textOf("o_weight", { version })}</label>
          <span class="number-row bounded">
            <input
              id={`${id}${version}`}
              type="range"
              min={0}
              max={1}
              step={0.01}
              value={weights[version] ?? 0}
              onInput={(event) => setWeights({ ...weights, [version]: Number(event.currentTarget.value) })}
            />
            <span class="number">{formatPercent(total ? (weights[version] ?? 0) / total : 0)}</span>
          </span>
          <label class="check small">
            <input
              type="checkbox"
              checked={shadow.includes(version)}
              onChange={(event) =>
                setShadow(
                  event.currentTarget.checked ? [...shadow, version] : shadow.filter((each) => each !== version),
                )
              }
            />
            {textOf("o_shadow")}
          </label>
        </div>
      ))}
      {wrong && (
        <p class="wrong" role="alert">
          {wrong}
        </p>
      )}
      <div>
        <button class="button" type="submit" disabled={total === 0} aria-busy={busy}>
          {textOf("o_saveTraffic")}
        </button>
      </div>
    </form>
  );
}

function Price({ model, changed }: { model: Model; changed: () => void }) {
  const [price, setPrice] = useState(String(model.price));
  const { busy, error, submit } = useSending(async () => {
    await call("put", "/admin/models/{name}/price", {
      path: { name: model.name },
      body: { price_credits: price.trim() === "" ? null : Number(price) },
    });
    say(textOf("o_doneIt"));
    changed();
  });
  const wrong = wrongOf(error, ["price_credits"]);
  return (
    <form class="stack tight" onSubmit={submit}>
      <h3>{textOf("o_price")}</h3>
      <Field label={textOf("o_credits")} hint={textOf("o_priceHint")} wrong={wrong["price_credits"] ?? wrong[""]}>
        {(control) => (
          <input
            {...control}
            class="short"
            type="text"
            inputMode="numeric"
            pattern="[0-9]*"
            value={price}
            onInput={(event) => setPrice(event.currentTarget.value)}
          />
        )}
      </Field>
      <div>
        <button class="button" type="submit" aria-busy={busy}>
          {textOf("o_savePrice")}
        </button>
      </div>
    </form>
  );
}
