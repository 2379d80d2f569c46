import { useState } from "preact/hooks";
import { call, type Schemas } from "../api/client";
import { Problem, stepsOf } from "../api/problem";
import { isObject, objectDraft, placeOf, readForm, type Draft, type Field, type Wrongs } from "../form/draft";
import { FieldInputs } from "../form/inputs";
import { Failure } from "../parts/states";
import { askBalance, balance, session } from "../state/session";
import { useStore } from "../state/store";
import { said, t } from "../words";
import type { Order } from "./snippets";

export type Model = Schemas["Model"];
export type Drafts = Readonly<Record<string, Draft>>;

/** What the form starts with: an input that was asked before, or nothing. */
export function draftsOf(fields: readonly Field[], input: unknown): Drafts {
  return objectDraft(fields, input).fields;
}

/** The examples that the form can show: those of raw input, and those of features where both are the same. */
export function examplesOf(model: Model): { title: string; input: Record<string, unknown> }[] {
  const alike = JSON.stringify(model.input_schema) === JSON.stringify(model.features_schema);
  return model.examples.flatMap((example, index) => {
    const input = example.input ?? (alike ? example.features : null);
    return input ? [{ title: example.title ? said(example.title) : t("example", { n: index + 1 }), input }] : [];
  });
}

/** What a form says, whether it fits or not: what the snippets show. */
export function orderOf(model: Model, drafts: Drafts): Order {
  const { value } = readForm(model.fields, drafts);
  const asked = model.version === model.default_version ? {} : { version: model.version };
  return { model: model.name, ...asked, input: value };
}

/** The form of a model, its examples, the price, and the button. */
export function Ask({
  model,
  drafts,
  change,
  asked,
}: {
  model: Model;
  drafts: Drafts;
  change: (drafts: Drafts) => void;
  /** Called with the id of a prediction that was accepted. */
  asked: (id: string) => void;
}) {
  const fields = model.fields;
  const now = useStore(session);
  const [wrongs, setWrongs] = useState<Wrongs>({});
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const [asJson, setAsJson] = useState<string | null>(null);
  /** One key for one request, so that pressing again after a lost answer is no second prediction. */
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
  const press = async (): Promise<void> => {
    const read = readForm(fields, drafts);
    let input: unknown = read.value;
    if (asJson !== null) {
      try {
        input = JSON.parse(asJson);
      } catch (failed) {
        setError(new Error(failed instanceof Error ? failed.message : ""));
        tell({ "": t("noJson", { reason: failed instanceof Error ? failed.message : "" }) });
        return;
      }
    } else if (Object.keys(read.wrongs).length) {
      setError(undefined);
      tell(read.wrongs);
      return;
    }
    const order = { ...orderOf(model, drafts), input: input as Record<string, unknown> };
    const body = JSON.stringify(order);
    const key = sent.body === body ? sent.key : newRequestKey();
    setSent({ body, key });
    setBusy(true);
    setError(undefined);
    setWrongs({});
    try {
      const made = await call("post", "/predictions/predict", { body: order, headers: { "Idempotency-Key": key } });
      setSent({ body: "", key: "" });
      void askBalance();
      asked(made.id);
    } catch (failed) {
      const found = wrongsOf(failed, fields);
      if (found) tell(found);
      else setError(failed);
    } finally {
      setBusy(false);
    }
  };
  return (
    <form
      class="card stack ask"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (!busy) void press();
      }}
    >
      <div class="row apart">
        <h2>{t("yourInput")}</h2>
        <div class="tabs">
          <button
            type="button"
            aria-pressed={asJson === null}
            onClick={() => {
              const value = jsonOf(asJson);
              if (isObject(value)) change(draftsOf(fields, value));
              setAsJson(null);
            }}
          >
            {t("asForm")}
          </button>
          <button
            type="button"
            aria-pressed={asJson !== null}
            onClick={() => setAsJson(JSON.stringify(orderOf(model, drafts).input, null, 2))}
          >
            JSON
          </button>
        </div>
      </div>
      <Examples
        model={model}
        take={(input) => {
          setWrongs({});
          setError(undefined);
          change(draftsOf(fields, input));
          if (asJson !== null) setAsJson(JSON.stringify(input, null, 2));
        }}
      />
      {asJson === null ? (
        <FieldInputs fields={fields} drafts={drafts} prefix="" wrongs={wrongs} change={take} />
      ) : (
        <textarea
          class="code"
          aria-label="JSON"
          spellcheck={false}
          rows={12}
          value={asJson}
          onInput={(event) => setAsJson(event.currentTarget.value)}
        />
      )}
      {wrongs[""] && (
        <p class="wrong" role="alert">
          {wrongs[""]}
        </p>
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

function jsonOf(text: string | null): unknown {
  try {
    return text === null ? null : JSON.parse(text);
  } catch {
    return null;
  }
}

function newRequestKey(): string {
  // Of 128 bits; `randomUUID` is only there in a secure context.
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What the API finds wrong, at the fields; null when it is about something else. */
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
