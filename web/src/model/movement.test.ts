import { expect, test } from "vitest";

import { nameOf, starsOf } from "./movement";

test("a refund of Stars is called so, and every other adjustment an adjustment", () => {
  const refund = { kind: "adjustment", reference: "telegram-refund:abc", note: "refund of 1 Telegram Star" } as const;
  expect([nameOf(refund), starsOf(refund)]).toEqual(["movement_stars_refund", 1]);
  const payment = { kind: "top_up", reference: "telegram:abc", note: "250 Telegram Stars" } as const;
  expect([nameOf(payment), starsOf(payment)]).toEqual(["movement_top_up", 250]);
  const other = { kind: "adjustment", reference: "mine", note: "5 Telegram Stars" } as const;
  expect([nameOf(other), starsOf(other)]).toEqual(["movement_adjustment", null]);
  expect(starsOf({ kind: "hold", reference: null, note: null })).toBeNull();
});
