import type { Schemas } from "../api/client";
import { formatSeconds } from "../words";

type LogLine = Schemas["ShownRecord"];

/** Short names for fields of the Elastic Common Schema, the most useful first; all other fields follow. */
const SHORT: readonly (readonly [string, string])[] = [
  ["http.request.method", "method"],
  ["route", "route"],
  ["http.response.status_code", "status"],
  ["event.duration", "duration"],
  ["error.type", "error"],
  ["error.message", "error.message"],
  ["model", "model"],
  ["version", "version"],
];
/** Fields that are not shown, because every line has them or they mean nothing to people. */
const COMMON = new Set(["log.logger", "ecs.version", "event.dataset", "process.pid", "span_id"]);

/** The fields of a log line besides its message, as names and texts. */
export function saidBy(line: LogLine): [string, string][] {
  const fields = new Map<string, unknown>(Object.entries(line.fields ?? {}));
  const said: [string, unknown][] = [];
  for (const [name, short] of SHORT) {
    const value = fields.get(name);
    said.push([short, name === "event.duration" ? durationOf(value) : value]);
    fields.delete(name);
  }
  said.push(...[...fields].filter(([name]) => !COMMON.has(name)));
  said.push(["prediction_id", line.prediction_id], ["request_id", line.request_id], ["trace_id", line.trace_id]);
  return said
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]);
}

/** Formats nanoseconds for people. */
function durationOf(value: unknown): unknown {
  return typeof value === "number" ? formatSeconds(value / 1e9) : value;
}
