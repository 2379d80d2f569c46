import { useEffect, useRef, useState } from "preact/hooks";
import { call, type Schemas } from "../api/client";
import { parseJson, writeJson } from "../api/json";
import { Problem, stepsOf, Unreachable } from "../api/problem";
import { isObject, objectDraft, placeOf, readForm, type Draft, type Field, type Wrongs } from "../form/draft";
import { FieldInputs } from "../form/inputs";
import { Failure } from "../parts/states";
import { whenReachable } from "../state/reachable";
import { askBalance, balance, session } from "../state/session";
import { useStore } from "../state/store";
import { said, t } from "../words";
import { Refusals, type Refused } from "./refusals";
import type { Order } from "./snippets";

export type Model = Schemas["Model"];
export type Drafts = Readonly<Record<string, Draft>>;

/** The initial values of the form: an earlier input, or nothing. */
export function draftsOf(fields: readonly Field[], input: unknown): Drafts {
  return objectDraft(fields, input).fields;
}

/** The examples that the form can show: those of raw input, and those of features if both are the same. */
export function examplesOf(model: Model): { title: string; input: Record<string, unknown> }[] {
  const alike = writeJson(model.input_schema) === writeJson(model.features_schema);
  return model.examples.flatMap((example, index) => {
    const input = example.input ?? (alike ? example.features : null);
    return input ? [{ title: example.title ? said(example.title) : t("example", { n: index + 1 }), input }] : [];
  });
}

/** The request from the form (valid or not) or from the typed JSON; an error if that is invalid JSON. */
export function orderOf(model: Model, drafts: Drafts, json: string | null): Order | Error {
  const input = json === null ? readForm(model.fields, drafts).value : parsed(json);
  if (input instanceof Error) return input;
  const asked = model.version === model.default_version ? {} : { version: model.version };
  return { model: model.name, ...asked, input };
}

/** The value of a JSON text, or an error with a readable reason. */
function parsed(text: string): unknown {
  try {
    return parseJson(text);
  } catch (failed) {
    return new Error(t("noJson", { reason: failed instanceof Error ? failed.message : "" }));
  }
}

/** The form of a model, its examples, the price, and the button. */
export function Ask({
  model,
  drafts,
  change,
  json,
  changeJson,
  asked,
}: {
  model: Model;
  drafts: Drafts;
  change: (drafts: Drafts) => void;
  /** The text in the editor; null while the form is shown. */
  json: string | null;
  changeJson: (json: string | null) => void;
  /** Called with the id of a prediction that was accepted. */
  asked: (id: string) => void;
}) {
  const fields = model.fields;
  const now = useStore(session);
  const [wrongs, setWrongs] = useState<Wrongs>({});
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  /** As `busy`, but right before the next rendering: two presses may come before it. */
  const sending = useRef(false);
  /** The API's errors for an input that was typed as JSON. */
  const [refused, setRefused] = useState<Refused | null>(null);
  /** Whether a request waits until the app is reachable. */
  const [waits, setWaits] = useState(false);
  const ending = useRef<AbortController | null>(null);
  useEffect(() => () => ending.current?.abort(), []);
  /** The idempotency key of a request, so that a second press after a lost answer makes no second prediction. */
  const [sent, setSent] = useState({ body: "", key: "" });

  const take = (next: Drafts): void => {
    change(next);
    if (Object.keys(wrongs).length) setWrongs(readForm(fields, next).wrongs);
  };
  const tell = (found: Record<string, string>): void => {
    setWrongs(found);
    setTimeout(() =>
      document.querySelector<HTMLElement>("form.ask [aria-invalid], form.ask fieldset[tabindex]")?.focus(),
    );
  };
  const clear = (): void => {
    setWrongs({});
    setRefused(null);
    setError(undefined);
  };
  /** Retries with the same key, so that a request that the app has already accepted is not accepted again. */
  const send = async (body: Schemas["NewPrediction"], key: string, signal: AbortSignal): Promise<string> => {
    for (;;) {
      try {
        const headers = { "Idempotency-Key": key };
        return (await call("post", "/predictions/predict", { body, headers, signal })).id;
      } catch (failed) {
        if (!(failed instanceof Unreachable) || signal.aborted) throw failed;
        setWaits(true);
        await whenReachable(signal);
      } finally {
        setWaits(false);
      }
    }
  };
  const press = async (): Promise<void> => {
    const order = orderOf(model, drafts, json);
    const found = order instanceof Error ? { "": order.message } : json === null ? readForm(fields, drafts).wrongs : {};
    clear();
    if (order instanceof Error || Object.keys(found).length) {
      tell(found);
      return;
    }
    const body = writeJson(order);
    const key = sent.body === body ? sent.key : newRequestKey();
    setSent({ body, key });
    sending.current = true;
    setBusy(true);
    const { signal } = (ending.current = new AbortController());
    try {
      const id = await send(order as Schemas["NewPrediction"], key, signal);
      // The user may have signed out meanwhile.
      if (signal.aborted) return;
      setSent({ body: "", key: "" });
      void askBalance();
      asked(id);
    } catch (failed) {
      if (signal.aborted) return;
      const found = wrongsOf(failed, fields);
      if (!found) {
        setError(failed);
        return;
      }
      if (json !== null && failed instanceof Problem) setRefused({ input: order.input, errors: failed.errors });
      tell(found);
    } finally {
      sending.current = false;
      setBusy(false);
    }
  };
  return (
    <form
      class="card stack ask"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (!sending.current) void press();
      }}
    >
      <div class="row apart">
        <h2>{t("yourInput")}</h2>
        <div class="tabs">
          <button
            type="button"
            aria-pressed={json === null}
            onClick={() => {
              const value = json === null ? null : parsed(json);
              // Keep the editor while its text is invalid JSON, which the form can't show.
              if (value instanceof Error) tell({ "": value.message });
              else changeJson(null);
            }}
          >
            {t("asForm")}
          </button>
          <button
            type="button"
            aria-pressed={json !== null}
            onClick={() => changeJson(json ?? writeJson(readForm(fields, drafts).value, 2))}
          >
            JSON
          </button>
        </div>
      </div>
      <Examples
        model={model}
        take={(input) => {
          clear();
          change(draftsOf(fields, input));
          if (json !== null) changeJson(writeJson(input, 2));
        }}
      />
      {json === null ? (
        <FieldInputs fields={fields} drafts={drafts} prefix="" wrongs={wrongs} change={take} />
      ) : (
        <textarea
          class="code"
          aria-label="JSON"
          spellcheck={false}
          rows={12}
          value={json}
          aria-invalid={refused !== null || wrongs[""] ? true : undefined}
          aria-describedby={refused ? "refused" : undefined}
          onInput={(event) => {
            const text = event.currentTarget.value;
            changeJson(text);
            // The errors belong to the earlier text.
            clear();
            const value = parsed(text);
            if (isObject(value)) change(draftsOf(fields, value));
          }}
        />
      )}
      {json !== null && refused && <Refusals refused={refused} fields={fields} id="refused" />}
      {wrongs[""] && !(json !== null && refused) && (
        <p class="wrong" role="alert">
          {wrongs[""]}
        </p>
      )}
      {waits && (
        <div class="row small" role="status">
          <span class="grow">{t("askedWhenBack")}</span>
          <button class="button little" type="button" onClick={() => ending.current?.abort()}>
            {t("cancel")}
          </button>
        </div>
      )}
      {error instanceof Error && !wrongs[""] && <Failure error={error} retry={() => void press()} />}
      {now.state === "out" ? (
        <a class="button main-action" href={`/ui/sign-in?next=${encodeURIComponent(`/models/${model.name}`)}`}>
          {t("signInToAsk")}
        </a>
      ) : (
        <Price model={model} busy={busy} />
      )}
    </form>
  );
}

function newRequestKey(): string {
  // 128 random bits. `randomUUID` exists only in a secure context.
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The API's errors by field; null if the error is not about the input. */
function wrongsOf(error: unknown, fields: readonly Field[]): Record<string, string> | null {
  if (!(error instanceof Problem) || error.status !== 422 || error.errors.length === 0) return null;
  const found: Record<string, string> = {};
  for (const each of error.errors) {
    // The first step is `input` itself.
    const place = each.pointer ? placeOf(fields, stepsOf(each.pointer).slice(1)) : "";
    found[place] ??= each.detail ?? error.message;
  }
  return found;
}

function Examples({ model, take }: { model: Model; take: (input: Record<string, unknown>) => void }) {
  const examples = examplesOf(model);
  if (examples.length === 0) return null;
  return (
    <div class="row" role="group" aria-label={t("examples")}>
      <span class="small muted">{t("examples")}:</span>
      {examples.map((example) => (
        <button key={example.title} class="button little" type="button" onClick={() => take(example.input)}>
          {example.title}
        </button>
      ))}
    </div>
  );
}

function Price({ model, busy }: { model: Model; busy: boolean }) {
  const now = useStore(balance);
  const short = now !== null && now.available < model.price;
  return (
    <div class="stack tight">
      {short && (
        <div class="notice warn" role="status">
          <strong>{t("outOfCredits")}</strong>
          <p>{t("needsCredits", { price: model.price, available: now.available })}</p>
          <a href="/ui/balance">{t("toBalance")}</a>
        </div>
      )}
      <div class="row apart">
        <p class="small">
          {t("costs", { n: model.price })}{" "}
          {now && !short && <span class="muted">{t("leavesYou", { n: now.available - model.price })}</span>}
        </p>
        <button class="button main-action" type="submit" disabled={short} aria-busy={busy}>
          {busy ? t("sending") : t("ask")}
        </button>
      </div>
    </div>
  );
}
