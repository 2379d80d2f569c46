import { expect, test, vi } from "vitest";
import { gather } from "./gather";

test("many calls within the time are one run, and later ones another", () => {
  vi.useFakeTimers();
  const run = vi.fn();
  const { call, stop } = gather(300, run);
  for (let each = 0; each < 1000; each += 1) call();
  vi.advanceTimersByTime(300);
  expect(run).toHaveBeenCalledTimes(1);
  call();
  vi.advanceTimersByTime(300);
  expect(run).toHaveBeenCalledTimes(2);
  call();
  stop();
  vi.advanceTimersByTime(300);
  expect(run).toHaveBeenCalledTimes(2);
  vi.useRealTimers();
});
