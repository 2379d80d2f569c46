import { describe, expect, it } from "vitest";
import { adviceFor } from "./scaling";

const calm = { live: 3, busy: 1, queued: 0, oldestS: 0, perS: 10 };

describe("adviceFor", () => {
  it("says nothing where nobody waits and workers work", () => {
    expect(adviceFor(calm).kind).toBe("enough");
  });

  it("wants workers where there are none", () => {
    expect(adviceFor({ ...calm, live: 0, busy: 0 })).toEqual({ kind: "none", workers: 3, drainS: 0 });
  });

  it("wants as many more as work off what waits, but not many times as many at once", () => {
    const waiting = { ...calm, busy: 3, queued: 450, oldestS: 40 };
    expect(adviceFor(waiting)).toEqual({ kind: "more", workers: 5, drainS: 45 });
    expect(adviceFor({ ...waiting, queued: 100_000 }).workers).toBe(7);
  });

  it("does not take a short queue for a long one, nor busy workers for too few", () => {
    expect(adviceFor({ ...calm, busy: 3, queued: 50, oldestS: 3 }).kind).toBe("enough");
    expect(adviceFor({ ...calm, busy: 1, queued: 500, oldestS: 40 }).kind).toBe("enough");
  });

  it("says that something is wrong where tasks wait and nothing is done", () => {
    expect(adviceFor({ ...calm, busy: 3, queued: 5, oldestS: 60, perS: 0 })).toMatchObject({
      kind: "stuck",
      drainS: null,
    });
  });

  it("wants fewer where most have nothing to do, and never none", () => {
    expect(adviceFor({ ...calm, live: 8, busy: 1 })).toMatchObject({ kind: "fewer", workers: 4 });
    expect(adviceFor({ ...calm, live: 1, busy: 0 }).kind).toBe("enough");
  });
});
