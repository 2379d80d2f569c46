import { useId } from "preact/hooks";
import { writeJson } from "../api/json";
import { formatNumber, said, t } from "../words";
import { boundsHint, lengthOf, sliderOf } from "./bounds";
import { emptyDraft, newKey, NONE, numberOf, objectDraft, type Draft, type Field, type Wrongs } from "./draft";

export interface InputProps {
  field: Field;
  draft: Draft;
  /** Its path in the form: `tags/2/name`. */
  path: string;
  wrongs: Wrongs;
  change: (draft: Draft) => void;
}

interface Control {
  id: string;
  "aria-describedby"?: string;
  "aria-invalid"?: boolean;
  "aria-required"?: boolean;
}
type ControlProps = InputProps & { control: Control };

const FEW_CHOICES = 4;
/** Texts that may be longer than this get an input of several lines. */
const LONG_TEXT = 120;

/** The inputs of a form, or of an object in it. */
export function FieldInputs({
  fields,
  drafts,
  prefix,
  wrongs,
  change,
}: {
  fields: readonly Field[];
  drafts: Readonly<Record<string, Draft>>;
  prefix: string;
  wrongs: Wrongs;
  change: (drafts: Record<string, Draft>) => void;
}) {
  return (
    <div class="stack">
      {fields.map((field) => (
        <FieldInput
          key={field.name}
          field={field}
          draft={drafts[field.name] ?? NONE}
          path={prefix + field.name}
          wrongs={wrongs}
          change={(draft) => change({ ...drafts, [field.name]: draft })}
        />
      ))}
    </div>
  );
}

/** One field: title, description, control and error. */
export function FieldInput(props: InputProps) {
  const { field, path, wrongs } = props;
  const id = useId();
  const wrong = wrongs[path];
  const hint = hintOf(field);
  const control: Control = {
    id,
    "aria-describedby": [hint && `${id}-hint`, wrong && `${id}-wrong`].filter(Boolean).join(" ") || undefined,
    "aria-invalid": wrong ? true : undefined,
    "aria-required": field.required ? true : undefined,
  };
  const title = (
    <>
      {said(field.title)} {!field.required && <span class="optional">{t("optional")}</span>}
    </>
  );
  const notes = (
    <>
      {hint && (
        <span class="hint" id={`${id}-hint`}>
          {hint}
        </span>
      )}
      {wrong && (
        <span class="wrong" id={`${id}-wrong`}>
          {wrong}
        </span>
      )}
    </>
  );
  if (isGroup(props))
    return (
      <fieldset class="field" aria-describedby={control["aria-describedby"]} id={id} tabIndex={wrong ? -1 : undefined}>
        <legend>{title}</legend>
        <Control {...props} control={control} />
        {notes}
      </fieldset>
    );
  return (
    <div class="field">
      <label for={id}>{title}</label>
      <Control {...props} control={control} />
      {notes}
    </div>
  );
}

/** Whether a field consists of several controls, so that it needs a legend in place of a label. */
function isGroup({ field, draft }: InputProps): boolean {
  return (
    field.kind === "object" ||
    field.kind === "list" ||
    (field.nullable && draft.kind !== "none") ||
    (field.kind === "choice" && (field.choices ?? []).length <= FEW_CHOICES) ||
    (field.kind === "boolean" && (!field.required || field.nullable))
  );
}

function hintOf(field: Field): string {
  const words = said(field.description);
  const bounds = field.kind === "number" || field.kind === "integer" ? boundsHint(field) : "";
  return [words, bounds].filter(Boolean).join(". ");
}

function Control(props: ControlProps) {
  const { field, draft, change } = props;
  const inner = draft.kind === "null" ? null : <ValueControl {...props} />;
  if (!field.nullable) return inner;
  return (
    <>
      {inner}
      <label class="check small">
        <input
          type="checkbox"
          checked={draft.kind === "null"}
          onChange={(event) => change(event.currentTarget.checked ? { kind: "null" } : emptyDraft(field))}
        />
        {t("notKnown")}
      </label>
    </>
  );
}

function ValueControl(props: ControlProps) {
  switch (props.field.kind) {
    case "choice":
      return <ChoiceControl {...props} />;
    case "boolean":
      return <SwitchControl {...props} />;
    case "number":
    case "integer":
      return <NumberControl {...props} />;
    case "list":
      return <ListControl {...props} />;
    case "object":
      return <ObjectControl {...props} />;
    default:
      return <TextControl {...props} />;
  }
}

function ChoiceControl({ field, draft, change, control }: ControlProps) {
  const choices = field.choices ?? [];
  const chosen = draft.kind === "choice" ? draft.index : -1;
  const take = (index: number): void => change(index < 0 ? NONE : { kind: "choice", index });
  if (choices.length <= FEW_CHOICES)
    return (
      <div
        class="choices"
        role="radiogroup"
        aria-required={control["aria-required"]}
        aria-invalid={control["aria-invalid"]}
      >
        {!field.required && <Radio name={control.id} label={t("leftOut")} on={chosen < 0} take={() => take(-1)} />}
        {choices.map((choice, index) => (
          <Radio
            key={index}
            name={control.id}
            label={said(choice.label)}
            on={index === chosen}
            take={() => take(index)}
          />
        ))}
      </div>
    );
  return (
    <select {...control} value={String(chosen)} onChange={(event) => take(Number(event.currentTarget.value))}>
      <option value="-1">{field.required ? t("pleaseChoose") : t("leftOut")}</option>
      {choices.map((choice, index) => (
        <option key={index} value={String(index)}>
          {said(choice.label)}
        </option>
      ))}
    </select>
  );
}

function Radio({ name, label, on, take }: { name: string; label: string; on: boolean; take: () => void }) {
  return (
    <label>
      <input type="radio" name={name} checked={on} onChange={take} />
      {label}
    </label>
  );
}

function SwitchControl({ field, draft, change, control }: ControlProps) {
  const value = draft.kind === "boolean" ? draft.value : null;
  if (field.required && !field.nullable)
    return (
      <span class="check">
        <input
          {...control}
          type="checkbox"
          role="switch"
          checked={value === true}
          onChange={(event) => change({ kind: "boolean", value: event.currentTarget.checked })}
        />
        <span aria-hidden="true">{value ? t("yes") : t("no")}</span>
      </span>
    );
  return (
    <div class="choices" role="radiogroup" aria-invalid={control["aria-invalid"]}>
      {!field.required && (
        <Radio name={control.id} label={t("leftOut")} on={value === null} take={() => change(NONE)} />
      )}
      <Radio
        name={control.id}
        label={t("yes")}
        on={value === true}
        take={() => change({ kind: "boolean", value: true })}
      />
      <Radio
        name={control.id}
        label={t("no")}
        on={value === false}
        take={() => change({ kind: "boolean", value: false })}
      />
    </div>
  );
}

function NumberControl({ field, draft, change, control }: ControlProps) {
  const text = draft.kind === "text" ? draft.text : "";
  const slider = sliderOf(field);
  const type = (value: string): void => change(value === "" ? NONE : { kind: "text", text: value });
  const number = numberOf(text);
  return (
    <div class={`number-row${slider ? " bounded" : ""}`}>
      {slider && (
        <input
          type="range"
          aria-label={t("slider", { title: said(field.title) })}
          aria-valuetext={number === null ? t("notSet") : formatNumber(number)}
          min={slider.low}
          max={slider.high}
          step={slider.step}
          value={number === null ? slider.low : Number(number)}
          onInput={(event) => type(event.currentTarget.value)}
        />
      )}
      <span class="with-unit">
        <input
          {...control}
          type="text"
          inputMode={field.kind === "integer" ? "numeric" : "decimal"}
          autoComplete="off"
          value={text}
          onInput={(event) => type(event.currentTarget.value)}
        />
        {field.unit && <span class="unit">{said(field.unit)}</span>}
      </span>
    </div>
  );
}

function TextControl({ field, draft, change, control }: ControlProps) {
  const text = draft.kind === "text" ? draft.text : "";
  const shared = {
    ...control,
    value: text,
    onInput: (event: { currentTarget: { value: string } }) => change({ kind: "text", text: event.currentTarget.value }),
  };
  if (field.kind === "json")
    return <textarea {...shared} class="code" spellcheck={false} placeholder={exampleOf(field)} rows={6} />;
  if (field.kind === "time") return <input {...shared} type="time" step={/:\d\d:\d\d/.test(text) ? 1 : 60} />;
  if (field.kind === "date") return <input {...shared} type="date" />;
  if (field.kind === "datetime") return <input {...shared} type="text" placeholder="2026-01-31T12:00:00Z" />;
  const most = field.max_length;
  if (most != null && most <= LONG_TEXT) return <input {...shared} type="text" autoComplete="off" />;
  return (
    <>
      <textarea {...shared} rows={4} />
      {most != null && (
        <span class={`small to-right ${lengthOf(text) > most ? "wrong" : "muted"}`}>
          {formatNumber(lengthOf(text))} / {formatNumber(most)}
        </span>
      )}
    </>
  );
}

function exampleOf(field: Field): string {
  return field.example === undefined ? "" : writeJson(field.example);
}

function ObjectControl({ field, draft, path, wrongs, change }: ControlProps) {
  const present = draft.kind === "object";
  return (
    <div class="nested stack">
      {!field.required && (
        <label class="check">
          <input
            type="checkbox"
            checked={present}
            onChange={(event) =>
              change(event.currentTarget.checked ? objectDraft(field.fields ?? [], {}) : { kind: "none" })
            }
          />
          {t("giveIt")}
        </label>
      )}
      {present && (
        <FieldInputs
          fields={field.fields ?? []}
          drafts={draft.fields}
          prefix={`${path}/`}
          wrongs={wrongs}
          change={(fields) => change({ kind: "object", fields })}
        />
      )}
    </div>
  );
}

function ListControl({ field, draft, path, wrongs, change }: ControlProps) {
  const { items: itemField } = field;
  if (!itemField) return null;
  const items = draft.kind === "list" ? draft.items : [];
  const full = field.max_items != null && items.length >= field.max_items;
  const put = (next: typeof items): void =>
    change(next.length === 0 && !field.required ? NONE : { kind: "list", items: next });
  return (
    <div class="nested stack tight">
      {items.map(({ key, draft: item }, index) => (
        <div key={key} class="item">
          <FieldInput
            field={{ ...itemField, title: numbered(itemField.title, index), required: true }}
            draft={item}
            path={`${path}/${index}`}
            wrongs={wrongs}
            change={(next) => put(items.map((each) => (each.key === key ? { key, draft: next } : each)))}
          />
          <button
            class="button little quiet"
            type="button"
            aria-label={t("removeItem", { n: index + 1 })}
            onClick={() => put(items.filter((each) => each.key !== key))}
          >
            ✕
          </button>
        </div>
      ))}
      <div>
        <button
          class="button little"
          type="button"
          disabled={full}
          onClick={() => put([...items, { key: newKey(), draft: emptyDraft({ ...itemField, required: true }) }])}
        >
          {t("addItem")}
        </button>
      </div>
    </div>
  );
}

function numbered(title: Field["title"], index: number): Field["title"] {
  return { en: `${title.en} ${index + 1}`, ru: `${title.ru} ${index + 1}` };
}
