import { formatNumber, t } from "../words";
import type { Field } from "./draft";

/** Why a number is invalid; empty if it is valid. */
export function wrongNumber(field: Field, value: number | bigint): string {
  if (value === Infinity || value === -Infinity) return t("noNumber");
  if (field.kind === "integer" && typeof value === "number" && !Number.isInteger(value)) return t("noWholeNumber");
  if (field.minimum != null && value < field.minimum) return t("atLeast", { least: field.minimum });
  if (field.maximum != null && value > field.maximum) return t("atMost", { most: field.maximum });
  if (field.exclusive_minimum != null && value <= field.exclusive_minimum)
    return t("above", { bound: field.exclusive_minimum });
  if (field.exclusive_maximum != null && value >= field.exclusive_maximum)
    return t("below", { bound: field.exclusive_maximum });
  if (field.multiple_of != null && !isMultiple(value, field.multiple_of))
    return t("multipleOf", { step: field.multiple_of });
  return "";
}

function isMultiple(value: number | bigint, step: number | bigint): boolean {
  if (typeof value === "bigint" || typeof step === "bigint") {
    // A step that is no whole number is left to the API.
    return !Number.isInteger(Number(step)) || BigInt(value) % BigInt(step) === 0n;
  }
  const times = value / step;
  return Math.abs(times - Math.round(times)) < 1e-9 * Math.max(1, Math.abs(times));
}

const FORMS: Partial<Record<Field["kind"], RegExp>> = {
  time: /^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?$/,
  date: /^\d{4}-\d\d-\d\d$/,
  datetime: /^\d{4}-\d\d-\d\dT\d\d:\d\d/,
};

/** Why a text is invalid; empty if it is valid. */
export function wrongText(field: Field, text: string): string {
  const form = FORMS[field.kind];
  if (form && !form.test(text)) return t(field.kind === "time" ? "noTime" : "noDate");
  const length = lengthOf(text);
  if (field.min_length != null && length < field.min_length)
    return length === 0 ? t("isMissing") : t("tooShort", { n: field.min_length });
  if (field.max_length != null && length > field.max_length) return t("tooLong", { n: field.max_length });
  if (field.pattern && !fits(field.pattern, text)) return text.trim() === "" ? t("isMissing") : t("wrongForm");
  return "";
}

/** The length in characters as JSON Schema counts them: an emoji is one. */
export function lengthOf(text: string): number {
  let length = 0;
  for (const character of text) length += character ? 1 : 0;
  return length;
}

function fits(pattern: string, text: string): boolean {
  try {
    return new RegExp(pattern, "u").test(text);
  } catch {
    // The browser does not support this pattern; the API checks it.
    return true;
  }
}

/** The bounds and step of a slider, if both bounds are known and the number of steps is not too large. */
export function sliderOf(field: Field): { low: number; high: number; step: number } | null {
  const low = field.minimum ?? field.exclusive_minimum;
  const high = field.maximum ?? field.exclusive_maximum;
  // A bound that is a bigint is beyond what a slider can be set to.
  if (typeof low !== "number" || typeof high !== "number" || high <= low || high - low > 1e6) return null;
  const step = field.multiple_of ?? (field.kind === "integer" ? 1 : niceStep((high - low) / 200));
  const lowest = field.minimum ?? low + step;
  const highest = field.maximum ?? high - step;
  return lowest < highest ? { low: lowest, high: highest, step } : null;
}

function niceStep(about: number): number {
  const size = 10 ** Math.floor(Math.log10(about));
  return about / size >= 5 ? size * 5 : about / size >= 2 ? size * 2 : size;
}

/** The conditions of a number, as text. */
export function boundsHint(field: Field): string {
  const { minimum, maximum, exclusive_minimum: above, exclusive_maximum: below } = field;
  if (minimum != null && maximum != null)
    return t("between", { low: formatNumber(minimum), high: formatNumber(maximum) });
  const parts = [
    minimum != null ? t("atLeast", { least: minimum }) : above != null && t("above", { bound: above }),
    maximum != null ? t("atMost", { most: maximum }) : below != null && t("below", { bound: below }),
  ];
  return parts.filter(Boolean).join(". ");
}
