/** The parts of a model's answer, by its schema and labels: a label, a probability, classes, and the rest. */
import type { Schemas } from "../api/client";
import { isNumber, writeJson } from "../api/json";
import { isObject } from "../form/draft";
import { formatNumber, language, said, t } from "../words";

type Model = Schemas["Model"];
type Schema = Record<string, unknown>;

export interface Answer {
  /** The label of the predicted value. */
  label: string | null;
  /** A single probability. */
  probability: { name: string; value: number } | null;
  /** All classes with their probabilities, the most probable first. */
  classes: { name: string; value: number; chosen: boolean }[];
  /** Everything else. */
  rest: { name: string; text: string }[];
}

export function readAnswer(model: Model | undefined, output: unknown): Answer {
  const answer: Answer = { label: null, probability: null, classes: [], rest: [] };
  if (!isObject(output)) {
    answer.rest.push({ name: t("output"), text: shown(output) });
    return answer;
  }
  const properties = propertiesOf(model?.output_schema);
  let chosen: string | undefined;
  for (const [name, value] of Object.entries(output)) {
    const schema = properties[name] ?? {};
    const title = titleOf(schema, name);
    if (answer.label === null && isLabel(value, schema, model)) {
      chosen = String(value);
      answer.label = labelOf(value, schema, model);
    } else if (answer.classes.length === 0 && isClasses(value)) {
      const inner = propertiesOf(schema);
      answer.classes = Object.entries(value)
        .map(([each, probability]) => ({
          name: model?.labels[each] ? said(model.labels[each]) : titleOf(inner[each] ?? {}, each),
          value: probability,
          chosen: chosen === each,
        }))
        .sort((one, other) => other.value - one.value);
    } else if (answer.probability === null && isProbability(value, schema)) {
      answer.probability = { name: title, value };
    } else {
      answer.rest.push({ name: title, text: labelOf(value, schema, model) });
    }
  }
  // A label that comes after its classes.
  if (chosen !== undefined && !answer.classes.some((each) => each.chosen)) {
    const word = answer.label;
    answer.classes = answer.classes.map((each) => ({ ...each, chosen: each.name === word }));
  }
  if (answer.label === null && answer.classes[0]) answer.label = answer.classes[0].name;
  return answer;
}

/** A number of an answer that can be plotted: its name, and how to read it. */
export interface Measure {
  name: string;
  path: readonly string[];
  low: number | null;
  high: number | null;
}

/** Every number of an answer, the probabilities first. */
export function measuresOf(model: Model): Measure[] {
  const found: Measure[] = [];
  const look = (schema: Schema, path: readonly string[], outer: string): void => {
    for (const [name, inner] of Object.entries(propertiesOf(schema))) {
      const title = path.length && model.labels[name] ? said(model.labels[name]) : titleOf(inner, name);
      const whole = outer ? `${outer}: ${title}` : title;
      if (inner["type"] === "object" && path.length < 3) look(inner, [...path, name], title);
      else if (inner["type"] === "number" || (inner["type"] === "integer" && !Array.isArray(inner["enum"])))
        found.push({
          name: whole,
          path: [...path, name],
          low: numberOr(inner["minimum"]),
          high: numberOr(inner["maximum"]),
        });
    }
  };
  look(model.output_schema, [], "");
  return found.sort((one, other) => Number(isShare(other)) - Number(isShare(one)));
}

export function isShare(measure: Measure): boolean {
  return measure.low === 0 && measure.high === 1;
}

export function measured(output: unknown, path: readonly string[]): number | null {
  let value: unknown = output;
  for (const step of path) value = isObject(value) ? value[step] : undefined;
  return numberOr(value);
}

function numberOr(value: unknown): number | null {
  return isNumber(value) ? Number(value) : null;
}

function propertiesOf(schema: unknown): Record<string, Schema> {
  const properties = isObject(schema) ? schema["properties"] : undefined;
  return isObject(properties) ? (properties as Record<string, Schema>) : {};
}

function titleOf(schema: Schema, name: string): string {
  const ru = schema["x-title-ru"];
  const en = schema["title"];
  const title = language() === "ru" && typeof ru === "string" ? ru : en;
  return typeof title === "string" ? title : name.replaceAll("_", " ");
}

function isLabel(
  value: unknown,
  schema: Schema,
  model: Model | undefined,
): value is string | number | bigint | boolean {
  if (typeof value !== "string" && !isNumber(value) && typeof value !== "boolean") return false;
  return Array.isArray(schema["enum"]) || model?.labels[String(value)] !== undefined;
}

function labelOf(value: unknown, schema: Schema, model: Model | undefined): string {
  const key = String(value);
  if (typeof value !== "object" && model?.labels[key]) return said(model.labels[key]);
  const words = schema[language() === "ru" ? "x-enum-labels-ru" : "x-enum-labels"] ?? schema["x-enum-labels"];
  const word = isObject(words) ? words[key] : undefined;
  return typeof word === "string" ? word : shown(value);
}

function isProbability(value: unknown, schema: Schema): value is number {
  return typeof value === "number" && schema["minimum"] === 0 && schema["maximum"] === 1;
}

function isClasses(value: unknown): value is Record<string, number> {
  if (!isObject(value)) return false;
  const numbers = Object.values(value);
  return numbers.length > 1 && numbers.every((each) => typeof each === "number" && each >= 0 && each <= 1);
}

function shown(value: unknown): string {
  if (isNumber(value)) return formatNumber(value);
  if (typeof value === "boolean") return t(value ? "yes" : "no");
  return typeof value === "string" ? value : writeJson(value, 2);
}
