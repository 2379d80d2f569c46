/** The errors of an input in the language of the page: the API's English texts, or texts made from the fields. */
import { isNumber, writeJson } from "../api/json";
import type { FieldProblem } from "../api/problem";
import { stepsOf } from "../api/problem";
import { language, t } from "../words";
import { wrongNumber, wrongText } from "./bounds";
import { isObject, same, type Field } from "./draft";

/** One error of an input: its path, such as `bag/kg`, and the reason. */
export interface Refusal {
  path: string;
  reason: string;
}

/** All errors, in the API's order. `input` is the value that was sent; pointers begin with `#/input`. */
export function refusalsOf(
  errors: readonly Partial<FieldProblem>[],
  fields: readonly Field[],
  input: unknown,
): Refusal[] {
  const found = errors.flatMap((each) => {
    const steps = each.pointer ? stepsOf(each.pointer) : [each.parameter ?? each.header ?? ""];
    const inner = each.pointer && steps[0] === "input" ? steps.slice(1) : steps;
    // For a nullable object the API reports only that it is neither; the error is inside the object.
    const { field, value } = valueAt(fields, inner, input);
    const below = field && inner.length ? wrongsBelow(field, value, inner) : [];
    return below.length
      ? below
      : [{ path: inner.join("/"), reason: reasonOf(fields, inner, input, each.detail ?? "") }];
  });
  return found.filter((each, index) => found.findIndex((other) => other.path === each.path) === index);
}

/** The errors inside an object or a list, by the checks of its fields. */
function wrongsBelow(field: Field, value: unknown, steps: readonly string[]): Refusal[] {
  const parts: [Field, string, unknown][] =
    field.kind === "object" && isObject(value)
      ? (field.fields ?? []).map((each) => [each, each.name, value[each.name]])
      : field.kind === "list" && field.items && Array.isArray(value)
        ? value.map((each: unknown, index) => [field.items as Field, String(index), each])
        : [];
  return parts.flatMap(([inner, name, part]) => {
    if (part === undefined && !inner.required) return [];
    const path = [...steps, name];
    const reason = wrongValue(inner, part);
    return reason ? [{ path: path.join("/"), reason }] : wrongsBelow(inner, part, path);
  });
}

/** Why the value at `steps` is invalid; `detail` is the API's text. */
export function reasonOf(fields: readonly Field[], steps: readonly string[], input: unknown, detail: string): string {
  if (language() === "en" && detail) return detail;
  const { field, value, known } = valueAt(fields, steps, input);
  if (!known) return t("noSuchField");
  const found = field ? wrongValue(field, value) : isObject(value) ? "" : t("noObject");
  // Only the API knows the error; an English text is better than none.
  return found || (detail ? `${t("wrongForm")} (${detail})` : t("wrongForm"));
}

function valueAt(
  fields: readonly Field[],
  steps: readonly string[],
  input: unknown,
): { field: Field | undefined; value: unknown; known: boolean } {
  let field: Field | undefined;
  let value = input;
  for (const step of steps) {
    if (field?.kind === "json") return { field: undefined, value, known: true };
    const inner: Field | undefined =
      field?.kind === "list"
        ? (field.items ?? undefined)
        : (field ? (field.fields ?? []) : fields).find((each) => each.name === step);
    if (!inner) return { field, value, known: false };
    value = Array.isArray(value) ? (value as unknown[])[Number(step)] : isObject(value) ? value[step] : undefined;
    field = inner;
  }
  return { field, value, known: true };
}

function wrongValue(field: Field, value: unknown): string {
  if (value === undefined) return t("isMissing");
  if (value === null) return field.nullable ? "" : t("isMissing");
  switch (field.kind) {
    case "choice":
      return (field.choices ?? []).some((choice) => same(choice.value, value)) ? "" : t("noChoice");
    case "boolean":
      return typeof value === "boolean" ? "" : t("noBoolean");
    case "number":
    case "integer":
      return isNumber(value) ? wrongNumber(field, value) : t("noNumber");
    case "list":
      return Array.isArray(value) ? wrongList(field, value) : t("noList");
    case "object":
      return isObject(value) ? "" : t("noObject");
    case "json":
      return "";
    default:
      return typeof value === "string" ? wrongText(field, value) : t("noText");
  }
}

function wrongList(field: Field, value: readonly unknown[]): string {
  if (field.min_items != null && value.length < field.min_items) return t("tooFewItems", { n: field.min_items });
  if (field.max_items != null && value.length > field.max_items) return t("tooManyItems", { n: field.max_items });
  return field.unique_items && new Set(value.map((each) => writeJson(each))).size < value.length ? t("itemsTwice") : "";
}
