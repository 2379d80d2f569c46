import { useEffect, useRef, useState } from "preact/hooks";
import { call } from "../api/client";
import { readForm, type Field } from "../form/draft";
import { LazyPlot } from "../parts/lazy_plot";
import { Pick } from "../parts/pick";
import { Failure } from "../parts/states";
import { TableFrame } from "../parts/table";
import { askBalance, balance } from "../state/session";
import { useStore } from "../state/store";
import { formatPercent, said, t } from "../words";
import { isShare, measured, measuresOf, type Measure } from "./answer";
import type { Drafts, Model } from "./ask";
import { canMove, countsOf, MOST_SERIES, questionsOf, stepsOfField, type Question, type Step } from "./grid";

/** Concurrent requests: enough to keep workers busy, too few to delay other users. */
const AT_ONCE = 4;

interface Run {
  steps: Step[];
  series: string[];
  values: (number | null)[][];
  measure: Measure;
  title: string;
  asked: number;
  done: number;
  spent: number;
}

/** Plots how the answer changes with one or two fields; all others have their values from the form. */
export function WhatIf({ model, drafts }: { model: Model; drafts: Drafts }) {
  const fields = model.fields.filter(canMove);
  const measures = measuresOf(model);
  const [along, setAlong] = useState(
    fields.find((each) => each.kind === "time" || each.kind === "number")?.name ?? fields[0]?.name ?? "",
  );
  const [across, setAcross] = useState(fields.find((each) => each.name !== along && fewChoices(each))?.name ?? "");
  const [points, setPoints] = useState("");
  const [measureName, setMeasureName] = useState(measures[0]?.name ?? "");
  const [run, setRun] = useState<Run | null>(null);
  const [error, setError] = useState<unknown>();
  const [wrong, setWrong] = useState("");
  const [busy, setBusy] = useState(false);
  const stop = useRef<AbortController | null>(null);
  const money = useStore(balance);
  useEffect(() => () => stop.current?.abort(), []);

  const measure = measures.find((each) => each.name === measureName) ?? measures[0];
  const field = fields.find((each) => each.name === along);
  const other = fields.find((each) => each.name === across && each.name !== along);
  if (!field || !measure) return null;

  const input = readForm(model.fields, drafts);
  const values = input.value as Record<string, unknown>;
  const counts = countsOf(field, values[field.name]);
  const count = counts.find((each) => String(each.asked) === points) ?? counts[Math.floor(counts.length / 2)];
  const steps = stepsOfField(field, count?.asked ?? 0, values[field.name]);
  const rows = other ? stepsOfField(other, MOST_SERIES, values[other.name]).slice(0, MOST_SERIES) : [];
  const questions = questionsOf(values, { field, steps }, other ? { field: other, steps: rows } : null);
  const price = questions.length * model.price;
  // The fields that vary need no value in the form.
  const missing = Object.keys(input.wrongs).filter((path) => path !== field.name && path !== other?.name);
  const short = money !== null && money.available < price;

  const begin = async (): Promise<void> => {
    if (missing.length) {
      setWrong(t("fillFormFirst"));
      return;
    }
    setWrong("");
    setError(undefined);
    setBusy(true);
    stop.current = new AbortController();
    const fresh: Run = {
      steps,
      series: other ? rows.map((row) => row.name) : [measure.name],
      values: (other ? rows : [null]).map(() => steps.map(() => null)),
      measure,
      title: said(field.title),
      asked: questions.length,
      done: 0,
      spent: 0,
    };
    setRun(fresh);
    try {
      await askAll(model, questions, stop.current.signal, (question, output) => {
        const row = fresh.values[question.row];
        if (row) row[question.column] = measured(output, measure.path);
        fresh.done += 1;
        fresh.spent += output === null ? 0 : model.price;
        setRun({ ...fresh, values: fresh.values.map((each) => [...each]) });
      });
    } catch (failed) {
      if (!stop.current.signal.aborted) setError(failed);
    } finally {
      stop.current.abort();
      setBusy(false);
      void askBalance();
    }
  };

  return (
    <section class="card stack" aria-labelledby="what-if">
      <div class="stack tight">
        <h2 id="what-if">{t("whatIf")}</h2>
        <p class="muted small">{t("whatIfSays")}</p>
      </div>
      <div class="filters">
        <Pick
          label={t("moves")}
          value={along}
          options={fields.map((each) => [each.name, said(each.title)])}
          pick={setAlong}
        />
        <Pick
          label={t("linesFor")}
          value={other ? across : ""}
          options={[
            ["", t("oneLine")],
            ...fields.filter((each) => each.name !== along).map((each) => [each.name, said(each.title)] as const),
          ]}
          pick={setAcross}
        />
        {counts.length > 1 && (
          <Pick
            label={t("points")}
            value={String(count?.asked)}
            options={counts.map(({ asked, given }) => [String(asked), String(given)])}
            pick={setPoints}
          />
        )}
        {measures.length > 1 && (
          <Pick
            label={t("shows")}
            value={measure.name}
            options={measures.map((each) => [each.name, each.name])}
            pick={setMeasureName}
          />
        )}
      </div>
      <div class="row">
        {busy ? (
          <button class="button" type="button" data-once onClick={() => stop.current?.abort()}>
            {t("stop")}
          </button>
        ) : (
          <button class="button main-action" type="button" data-once disabled={short} onClick={() => void begin()}>
            {t("draw")}
          </button>
        )}
        <span class="small">
          {short ? t("outOfCredits") : t("whatIfCosts", { n: questions.length, price: t("credits", { n: price }) })}
        </span>
      </div>
      {wrong && (
        <p class="wrong" role="alert">
          {wrong}
        </p>
      )}
      {error !== undefined && <Failure error={error} retry={() => void begin()} />}
      {run && <Drawn run={run} busy={busy} />}
    </section>
  );
}

function fewChoices(field: Field): boolean {
  return (field.kind === "choice" && (field.choices ?? []).length <= MOST_SERIES) || field.kind === "boolean";
}

function Drawn({ run, busy }: { run: Run; busy: boolean }) {
  const share = isShare(run.measure);
  const names = run.steps.length <= 24 ? new Map(run.steps.map((step) => [step.x, step.name])) : null;
  return (
    <div class="stack tight">
      <p class="small muted" role="status">
        {busy ? t("drawing", { done: run.done, asked: run.asked }) : t("drawn", { n: run.spent })}
      </p>
      <LazyPlot
        label={t("whatIfPlot", { measure: run.measure.name, field: run.title })}
        x={run.steps.map((step) => step.x)}
        series={run.values.map((values, index) => ({ name: run.series[index] ?? "", values }))}
        xNames={(value) => names?.get(value) ?? (names ? "" : String(value))}
        yNames={share ? formatPercent : undefined}
        yRange={share ? [0, 1] : undefined}
      />
      <details>
        <summary>{t("asTable")}</summary>
        <TableFrame label={t("asTable")}>
          <table>
            <thead>
              <tr>
                <th scope="col">{run.title}</th>
                {run.series.map((name) => (
                  <th key={name} scope="col" class="to-right">
                    {name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {run.steps.map((step, column) => (
                <tr key={step.x}>
                  <th scope="row">{step.name}</th>
                  {run.values.map((values, row) => (
                    <td key={row} class="number to-right">
                      {written(values[column] ?? null, share)}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </TableFrame>
      </details>
    </div>
  );
}

function written(value: number | null, share: boolean): string {
  if (value === null) return "–";
  return share ? formatPercent(value) : String(value);
}

/** Sends all requests, some concurrently. Throws the first error; a prediction that fails is a gap in the plot. */
async function askAll(
  model: Model,
  questions: readonly Question[],
  signal: AbortSignal,
  tell: (question: Question, output: unknown) => void,
): Promise<void> {
  const left = [...questions];
  const version = model.version === model.default_version ? {} : { version: model.version };
  const worker = async (): Promise<void> => {
    for (let question = left.shift(); question && !signal.aborted; question = left.shift()) {
      const made = await call("post", "/predictions/predict", {
        body: { model: model.name, ...version, input: question.input },
        headers: { Prefer: "wait=20" },
        signal,
      });
      tell(question, made.status === "succeeded" ? made.output : null);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}
