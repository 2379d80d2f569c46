import { useEffect, useRef } from "preact/hooks";
import { useLoad, type Loaded } from "../state/load";

/** Loads like `useLoad`, and reloads every `everyMs` while the page is visible. */
export function useLive<T>(key: string, load: (signal: AbortSignal) => Promise<T>, everyMs = 3000): Loaded<T> {
  const loaded = useLoad(key, load);
  const { busy } = loaded;
  const latest = useRef(loaded);
  latest.current = loaded;
  useEffect(() => {
    // Wait for the last request to end, so that requests never overlap.
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
