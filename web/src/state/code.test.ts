import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Unreachable } from "../api/problem";
import { loadCode } from "./code";
import { isReachable } from "./reachable";

const reload = vi.fn();
const missing = (): Promise<never> => Promise.reject(new TypeError("Failed to fetch a module"));

beforeEach(() => {
  vi.stubGlobal("location", { reload });
  sessionStorage.clear();
});

afterEach(() => {
  vi.unstubAllGlobals();
  reload.mockReset();
  isReachable.set(true);
});

test("code that could not be loaded without a connection leaves the page as it is", async () => {
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
  await expect(loadCode(missing)).rejects.toBeInstanceOf(Unreachable);
  expect(isReachable.get()).toBe(false);
  expect(reload).not.toHaveBeenCalled();
});

test("code that the app no longer has reloads the page, but not again and again", async () => {
  vi.stubGlobal("fetch", () => Promise.resolve(new Response()));
  await expect(loadCode(missing)).rejects.toBeInstanceOf(TypeError);
  await expect(loadCode(missing)).rejects.toBeInstanceOf(TypeError);
  expect(reload).toHaveBeenCalledTimes(1);
});

test("code that is there when the connection comes back in the same moment is used", async () => {
  vi.stubGlobal("fetch", () => Promise.resolve(new Response()));
  const load = vi.fn().mockRejectedValueOnce(new TypeError("Failed to fetch")).mockResolvedValueOnce("code");
  expect(await loadCode(load)).toBe("code");
  expect(reload).not.toHaveBeenCalled();
});
