import { useEffect, useRef } from "preact/hooks";
import { useLoad, type Loaded } from "../state/load";

/** Something that is asked for again and again while somebody looks. `key`: as `useLoad` has it. */
export function useLive<T>(key: string, load: (signal: AbortSignal) => Promise<T>, everyMs = 3000): Loaded<T> {
  const loaded = useLoad(key, load);
  const { busy } = loaded;
  const latest = useRef(loaded);
  latest.current = loaded;
  useEffect(() => {
    // The next look begins when the last has ended: a slow answer never makes a second one wait.
    if (busy) return undefined;
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
