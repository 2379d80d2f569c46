/**
 * JSON whose whole numbers stay as they are written. `JSON.parse` takes those beyond 2^53 for their neighbours; here they
 * are bigints.
 */

/** No text that somebody else wrote contains it. */
const MARK = `whole-${[...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16)).join("")}:`;
/** A text, or a number; texts are found, too, so that digits in them are left alone. */
const TEXTS_AND_NUMBERS = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g;
const MARKED = new RegExp(`"${MARK}(-?\\d+)"`, "g");

/** The value of a JSON text. Throws what `JSON.parse` throws. */
export function parseJson(text: string): unknown {
  const plain: unknown = JSON.parse(text);
  if (!/\d{16}/.test(text)) return plain;
  const marked = text.replace(TEXTS_AND_NUMBERS, (token) => (isLarge(token) ? `"${MARK}${token}"` : token));
  return JSON.parse(marked, (_, value: unknown) =>
    typeof value === "string" && value.startsWith(MARK) ? BigInt(value.slice(MARK.length)) : value,
  );
}

/** The JSON text of a value that may contain bigints. */
export function writeJson(value: unknown, indent?: number): string {
  const text = JSON.stringify(
    value,
    (_, each: unknown) => (typeof each === "bigint" ? `${MARK}${each}` : each),
    indent,
  ) as string | undefined;
  // Of undefined there is none; then it is what `JSON.stringify` gives.
  return text === undefined ? (text as unknown as string) : text.replace(MARKED, "$1");
}

/** A whole number as it is written: a bigint where a number would be another one. */
export function wholeOf(text: string): number | bigint {
  return isLarge(text) ? BigInt(text) : Number(text);
}

function isLarge(token: string): boolean {
  return /^-?\d{16,}$/.test(token) && !Number.isSafeInteger(Number(token));
}

export function hasLarge(value: unknown): boolean {
  if (typeof value === "bigint") return true;
  return typeof value === "object" && value !== null && Object.values(value).some(hasLarge);
}

export function isNumber(value: unknown): value is number | bigint {
  return typeof value === "number" || typeof value === "bigint";
}
