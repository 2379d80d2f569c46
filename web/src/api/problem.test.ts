import { expect, test } from "vitest";
import { Problem, problemOf, Unreachable } from "./problem";

const failed = (status: number, body: unknown): Response => new Response(JSON.stringify(body), { status });

test("what only reads can't have happened all the same", async () => {
  const body = { code: "internal_error", detail: "It broke.", outcome: "unknown" };
  const read = await problemOf(failed(500, body), "GET");
  const written = await problemOf(failed(500, body), "POST");
  expect(read instanceof Problem && [read.message, read.outcome]).toEqual(["It broke.", undefined]);
  expect(written instanceof Problem && [written.message, written.outcome]).toEqual(["It broke.", "unknown"]);
});

test("what a proxy answers for an app that is away is no problem of the app", async () => {
  expect(await problemOf(new Response("<html>", { status: 502 }), "GET")).toBeInstanceOf(Unreachable);
});
