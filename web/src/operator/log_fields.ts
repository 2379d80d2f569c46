import type { Schemas } from "../api/client";
import { formatSeconds } from "../words";

type LogLine = Schemas["ShownRecord"];

/** The names of Elastic's schema, in short, in the order in which people look for them; all others follow. */
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
/** What every line has, or what says nothing to people. */
const COMMON = new Set(["log.logger", "ecs.version", "event.dataset", "process.pid", "span_id"]);

/** Everything that a log line says besides its message, as names and texts. */
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

/** Nanoseconds, as people say them. */
function durationOf(value: unknown): unknown {
  return typeof value === "number" ? formatSeconds(value / 1e9) : value;
}
