/**
 * The state of a form while it is filled in, and its conversion to the value that is sent. Drafts keep texts as typed:
 * "12," is not a number yet, but must not be lost.
 */
import type { Schemas } from "../api/client";
import { isNumber, parseJson, wholeOf, writeJson } from "../api/json";
import { t } from "../words";
import { wrongNumber, wrongText } from "./bounds";

export type Field = Schemas["Field"];

export type Draft =
  /** No value; for a required field: not filled in yet. */
  | { kind: "none" }
  | { kind: "null" }
  | { kind: "text"; text: string }
  | { kind: "boolean"; value: boolean }
  /** The index of the value in `choices`. */
  | { kind: "choice"; index: number }
  | { kind: "list"; items: { key: number; draft: Draft }[] }
  | { kind: "object"; fields: Record<string, Draft> };

export const NONE: Draft = { kind: "none" };

/** Errors by the path of the field: `text`, `tags/2/name`. */
export type Wrongs = Readonly<Record<string, string>>;

export interface Read {
  value: unknown;
  /** Whether there is a value; a field that is left out has none. */
  given: boolean;
  wrongs: Record<string, string>;
}

let keys = 0;
/** A unique key for a new list item, so that items keep their state when one is removed. */
export function newKey(): number {
  keys += 1;
  return keys;
}

/** An empty draft, with the defaults of the fields. */
export function emptyDraft(field: Field): Draft {
  if (field.default !== undefined) return draftOf(field, field.default);
  switch (field.kind) {
    case "boolean":
      return field.required && !field.nullable ? { kind: "boolean", value: false } : NONE;
    case "object":
      return field.required ? objectDraft(field.fields ?? [], {}) : NONE;
    case "list":
      return field.required ? { kind: "list", items: someItems(field) } : NONE;
    default:
      return NONE;
  }
}

function someItems(field: Field): { key: number; draft: Draft }[] {
  const { items } = field;
  if (!items) return [];
  return Array.from({ length: Math.min(field.min_items ?? 0, 20) }, () => ({
    key: newKey(),
    draft: emptyDraft(items),
  }));
}

export function objectDraft(fields: readonly Field[], value: unknown): Draft & { kind: "object" } {
  const given = isObject(value) ? value : {};
  return {
    kind: "object",
    fields: Object.fromEntries(
      fields.map((field) => [field.name, field.name in given ? draftOf(field, given[field.name]) : emptyDraft(field)]),
    ),
  };
}

/** The draft of an earlier input or of an example. */
export function draftOf(field: Field, value: unknown): Draft {
  if (value === undefined) return NONE;
  if (value === null && field.nullable) return { kind: "null" };
  switch (field.kind) {
    case "choice": {
      const index = (field.choices ?? []).findIndex((choice) => same(choice.value, value));
      return index < 0 ? NONE : { kind: "choice", index };
    }
    case "boolean":
      return typeof value === "boolean" ? { kind: "boolean", value } : NONE;
    case "number":
    case "integer":
      return isNumber(value) ? { kind: "text", text: String(value) } : NONE;
    case "list": {
      const { items } = field;
      if (!Array.isArray(value) || !items) return NONE;
      return { kind: "list", items: value.map((item) => ({ key: newKey(), draft: draftOf(items, item) })) };
    }
    case "object":
      return isObject(value) ? objectDraft(field.fields ?? [], value) : NONE;
    case "json":
      return { kind: "text", text: writeJson(value, 2) };
    default:
      return typeof value === "string" ? { kind: "text", text: value } : NONE;
  }
}

/** The value of the whole form, and its errors. */
export function readForm(fields: readonly Field[], drafts: Readonly<Record<string, Draft>>): Read {
  return readFields(fields, drafts, "");
}

function readFields(fields: readonly Field[], drafts: Readonly<Record<string, Draft>>, path: string): Read {
  const value: Record<string, unknown> = {};
  let wrongs: Record<string, string> = {};
  for (const field of fields) {
    const read = readField(field, drafts[field.name] ?? NONE, path + field.name);
    wrongs = { ...wrongs, ...read.wrongs };
    if (read.given) value[field.name] = read.value;
  }
  return { value, given: true, wrongs };
}

function readField(field: Field, draft: Draft, path: string): Read {
  const wrong = (text: string): Read => ({ value: undefined, given: false, wrongs: { [path]: text } });
  const right = (value: unknown): Read => ({ value, given: true, wrongs: {} });
  if (draft.kind === "null") return right(null);
  if (draft.kind === "none" || (draft.kind === "text" && draft.text === "" && field.kind !== "text"))
    return field.required ? wrong(t("isMissing")) : { value: undefined, given: false, wrongs: {} };
  switch (draft.kind) {
    case "choice":
      return right(field.choices?.[draft.index]?.value);
    case "boolean":
      return right(draft.value);
    case "object":
      return readFields(field.fields ?? [], draft.fields, `${path}/`);
    case "list":
      return readList(field, draft.items, path);
    case "text":
      return readText(field, draft.text, wrong, right);
  }
}

function readText(field: Field, text: string, wrong: (text: string) => Read, right: (value: unknown) => Read): Read {
  if (field.kind === "json") {
    try {
      return right(parseJson(text));
    } catch (error) {
      return wrong(t("noJson", { reason: error instanceof Error ? error.message : "" }));
    }
  }
  if (field.kind === "number" || field.kind === "integer") {
    const number = numberOf(text);
    if (number === null) return wrong(t("noNumber"));
    const bound = wrongNumber(field, number);
    return bound ? wrong(bound) : right(number);
  }
  // An empty optional text is left out.
  if (text === "" && !field.required) return { value: undefined, given: false, wrongs: {} };
  const bound = wrongText(field, text);
  return bound ? wrong(bound) : right(text);
}

function readList(field: Field, items: readonly { draft: Draft }[], path: string): Read {
  const values: unknown[] = [];
  let wrongs: Record<string, string> = {};
  const { items: item } = field;
  if (item)
    items.forEach(({ draft }, index) => {
      // Every item needs a value; items can't be left out.
      const read = readField({ ...item, required: true }, draft, `${path}/${index}`);
      wrongs = { ...wrongs, ...read.wrongs };
      values.push(read.value);
    });
  if (field.min_items != null && values.length < field.min_items)
    wrongs[path] = t("tooFewItems", { n: field.min_items });
  if (field.max_items != null && values.length > field.max_items)
    wrongs[path] = t("tooManyItems", { n: field.max_items });
  if (field.unique_items && new Set(values.map((value) => writeJson(value))).size < values.length)
    wrongs[path] = t("itemsTwice");
  return { value: values, given: true, wrongs };
}

/** The typed number, with a comma or a point; null if it is invalid. Large whole numbers are bigints. */
export function numberOf(text: string): number | bigint | null {
  const plain = text.replace(/[\s\u00a0\u202f]/g, "").replace(",", ".");
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain) ? wholeOf(plain.replace(/^\+/, "")) : null;
}

export function same(one: unknown, other: unknown): boolean {
  return writeJson(one) === writeJson(other);
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * The path of the deepest field in the form that an error's pointer (`steps`) reaches; "" if it belongs to no field.
 */
export function placeOf(fields: readonly Field[], steps: readonly string[]): string {
  let known = "";
  let inner: readonly Field[] = fields;
  let item: Field | undefined;
  for (const step of steps) {
    const field: Field | undefined = item ?? inner.find((each) => each.name === step);
    if (!field) break;
    known = known ? `${known}/${step}` : step;
    item = field.kind === "list" ? (field.items ?? undefined) : undefined;
    inner = field.kind === "object" ? (field.fields ?? []) : [];
    if (!item && inner.length === 0) break;
  }
  return known;
}
