import { beforeEach, expect, it } from "vitest";
import type { Schemas } from "../api/client";
import { speak } from "../words";
import { saidBy } from "./log_fields";

type LogLine = Schemas["ShownRecord"];
/** A log line with additional fields, which the type from the OpenAPI document does not allow. */
const lineWith = (fields: Record<string, unknown>, ids: Partial<LogLine> = {}): LogLine =>
  ({ ...LINE, ...ids, fields }) as LogLine;
const LINE: LogLine = { service: "app", level: "INFO", message: "request_finished", timestamp: "2026-01-31T09:30:07Z" };

beforeEach(() => speak("en"));

it("says of a request what people ask first, in short names, and nothing twice", () => {
  const fields = {
    "event.duration": 12_000_000,
    "http.request.method": "POST",
    "http.response.status_code": 202,
    "log.logger": "foretell",
    route: "/predictions/predict",
    user_id: 7,
  };
  expect(saidBy(lineWith(fields, { request_id: "r-1", trace_id: null }))).toEqual([
    ["method", "POST"],
    ["route", "/predictions/predict"],
    ["status", "202"],
    ["duration", "12 ms"],
    ["user_id", "7"],
    ["request_id", "r-1"],
  ]);
});

it("keeps whatever else a service says", () => {
  const fields = { "error.type": "KeyError", rows: [1, { a: null }], empty: "", odd: null };
  expect(saidBy(lineWith(fields))).toEqual([
    ["error", "KeyError"],
    ["rows", '[1,{"a":null}]'],
    ["empty", ""],
  ]);
  expect(saidBy(LINE)).toEqual([]);
});
