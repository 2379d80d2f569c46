import { Unreachable } from "../api/problem";
import { isReachable } from "./reachable";

const RELOADED_AT = "foretell-reloaded-at";
const ONCE_IN_MS = 60_000;

/**
 * Loads a part of the page's code. Throws `Unreachable` if the app does not answer: then the page stays as it is and
 * `useLoad` loads the code when the app is back. If the app answers but has no such file, this tab is of an earlier
 * build, and the page is reloaded, once a minute at most.
 */
export async function loadCode<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch {
    if (!(await isThere())) {
      isReachable.set(false);
      throw new Unreachable();
    }
  }
  try {
    // The connection may have come back just now.
    return await load();
  } catch (error) {
    const before = Number(sessionStorage.getItem(RELOADED_AT) ?? 0);
    if (Date.now() - before > ONCE_IN_MS) {
      sessionStorage.setItem(RELOADED_AT, String(Date.now()));
      location.reload();
    }
    throw error;
  }
}

async function isThere(): Promise<boolean> {
  try {
    return (await fetch("/health/live", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}
