import { useEffect, useRef } from "preact/hooks";
import { ask } from "../api/client";
import { useLoad, type Loaded } from "../state/load";

/** Something of `/admin` that is asked for again and again while somebody looks. The answer is believed to be a `T`. */
export function useLive<T>(url: string, everyMs = 3000): Loaded<T> {
  const loaded = useLoad(url, (signal) => ask<T>("get", url, undefined, { signal }));
  const { busy } = loaded;
  const latest = useRef(loaded);
  latest.current = loaded;
  useEffect(() => {
    // The next look begins when the last has ended: a slow answer never makes a second one wait.
    if (busy || everyMs <= 0) return undefined;
    const timer = setTimeout(() => {
      if (!document.hidden) latest.current.reload();
    }, everyMs);
    return () => clearTimeout(timer);
  }, [busy, everyMs]);
  useEffect(() => {
    const shown = (): void => {
      if (!document.hidden) latest.current.reload();
    };
    document.addEventListener("visibilitychange", shown);
    return () => document.removeEventListener("visibilitychange", shown);
  }, []);
  return loaded;
}
