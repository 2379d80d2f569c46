import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { gather } from "./gather";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

test("many calls within the time are one run, and later ones another", () => {
  const run = vi.fn();
  const { call, stop } = gather(300, run);
  for (let each = 0; each < 1000; each += 1) call();
  vi.advanceTimersByTime(300);
  expect(run).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(1000);
  call();
  vi.advanceTimersByTime(300);
  expect(run).toHaveBeenCalledTimes(2);
  call();
  stop();
  vi.advanceTimersByTime(2000);
  expect(run).toHaveBeenCalledTimes(2);
});

test("calls without a pause are one run a second", () => {
  const run = vi.fn();
  const { call, stop } = gather(300, run);
  for (let each = 0; each < 100; each += 1) {
    call();
    vi.advanceTimersByTime(100);
  }
  stop();
  expect(run).toHaveBeenCalledTimes(10);
});
