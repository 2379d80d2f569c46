import { makeStore } from "./store";

/** Whether the app answered the last request. */
export const isReachable = makeStore(true);
/** Counts how often the app became reachable again; components then reload their data. */
export const comebacks = makeStore(0);

/** Resolves when the app is reachable, at once if it is. Rejects with the reason of `signal`. */
export function whenReachable(signal: AbortSignal): Promise<void> {
  return new Promise((done, fail) => {
    const finish = (): void => {
      unsubscribe();
      signal.removeEventListener("abort", look);
    };
    const look = (): void => {
      if (!signal.aborted && !isReachable.get()) return;
      finish();
      if (signal.aborted) fail(signal.reason instanceof Error ? signal.reason : new Error("aborted"));
      else done();
    };
    const unsubscribe = isReachable.subscribe(look);
    signal.addEventListener("abort", look);
    look();
  });
}

const LOOK_EVERY_MS = 2000;
let looking: ReturnType<typeof setInterval> | undefined;

async function look(): Promise<void> {
  try {
    const response = await fetch("/health/live", { cache: "no-store" });
    if (response.ok) isReachable.set(true);
  } catch {
    // Still unreachable.
  }
}

isReachable.subscribe(() => {
  if (isReachable.get()) {
    clearInterval(looking);
    looking = undefined;
    comebacks.set(comebacks.get() + 1);
  } else {
    looking ??= setInterval(() => void look(), LOOK_EVERY_MS);
  }
});

if (typeof window !== "undefined") {
  window.addEventListener("offline", () => isReachable.set(false));
  window.addEventListener("online", () => void look());
}
