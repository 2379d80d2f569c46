/** The inputs of a *what if* plot: one or two fields vary, all others are constant. */
import { sliderOf } from "../form/bounds";
import { same, type Field } from "../form/draft";
import { isNumber } from "../api/json";
import { formatNumber, said, t } from "../words";

export interface Step {
  value: unknown;
  name: string;
  /** The position on the axis. */
  x: number;
}

export const MOST_SERIES = 6;
const MOST_CHOICES = 24;

/** Whether the values of a field can be put on an axis. */
export function canMove(field: Field): boolean {
  return stepsOfField(field, 5, undefined).length > 1;
}

/** Values of a field, in order; at most `count` if the field has no fixed list. `now` is the value in the form. */
export function stepsOfField(field: Field, count: number, now: unknown): Step[] {
  switch (field.kind) {
    case "choice":
      return (field.choices ?? [])
        .slice(0, MOST_CHOICES)
        .map((choice, x) => ({ value: choice.value, name: said(choice.label), x }));
    case "boolean":
      return [false, true].map((value, x) => ({ value, name: t(value ? "yes" : "no"), x }));
    case "time":
      return times(count);
    case "number":
    case "integer":
      return numbers(field, count, now);
    default:
      return [];
  }
}

/** Possible numbers of points of a field, ascending, distinct: `stepsOfField` with `asked` returns `given` points. */
export function countsOf(field: Field, now: unknown): { asked: number; given: number }[] {
  const counts = (field.kind === "time" ? [8, 12, 24] : [7, 13, 25]).map((asked) => ({
    asked,
    given: stepsOfField(field, asked, now).length,
  }));
  return counts.filter((each, index) => counts.findIndex((other) => other.given === each.given) === index);
}

/** Times of a day at whole hours, which divide the day into about `count` parts. */
function times(count: number): Step[] {
  const every = Math.max(1, Math.ceil(24 / count));
  return Array.from({ length: Math.ceil(24 / every) }, (_, index) => {
    const hour = index * every;
    return { value: `${String(hour).padStart(2, "0")}:00`, name: `${hour}:00`, x: hour };
  });
}

function numbers(field: Field, count: number, now: unknown): Step[] {
  const slider = sliderOf(field);
  // Without bounds, from 0 to twice the value in the form.
  const middle =
    isNumber(now) && Number(now) !== 0 ? Number(now) : isNumber(field.example) ? Number(field.example) : null;
  const low = slider?.low ?? numberOr(field.minimum) ?? (middle === null ? null : Math.min(0, 2 * middle));
  const high = slider?.high ?? numberOr(field.maximum) ?? (middle === null ? null : Math.max(2 * middle, low ?? 0));
  if (low === null || high === null || high <= low) return [];
  const whole = field.kind === "integer";
  const made: Step[] = [];
  for (let index = 0; index < count; index += 1) {
    let value = low + ((high - low) * index) / (count - 1);
    const step = numberOr(field.multiple_of) ?? (whole ? 1 : slider?.step);
    if (step) value = low + Math.round((value - low) / step) * step;
    value = Number(value.toPrecision(12));
    if (whole) value = Math.round(value);
    if (!made.some((each) => same(each.value, value))) made.push({ value, name: formatNumber(value), x: value });
  }
  return made;
}

/** A bound may be a bigint. */
function numberOr(value: number | bigint | null | undefined): number | null {
  return value == null ? null : Number(value);
}

export interface Question {
  row: number;
  column: number;
  input: Record<string, unknown>;
}

/** All inputs of the grid, in the order of the requests: a coarse grid first, so that the shape is visible early. */
export function questionsOf(
  input: Record<string, unknown>,
  along: { field: Field; steps: readonly Step[] },
  across: { field: Field; steps: readonly Step[] } | null,
): Question[] {
  const rows = across?.steps.length ?? 1;
  const questions: Question[] = [];
  for (const column of coarseFirst(along.steps.length))
    for (let row = 0; row < rows; row += 1)
      questions.push({
        row,
        column,
        input: {
          ...input,
          [along.field.name]: along.steps[column]?.value,
          ...(across ? { [across.field.name]: across.steps[row]?.value } : {}),
        },
      });
  return questions;
}

function coarseFirst(count: number): number[] {
  const order: number[] = [];
  for (let stride = 8; stride >= 1; stride /= 2)
    for (let index = 0; index < count; index += stride) if (!order.includes(index)) order.push(index);
  return order;
}
