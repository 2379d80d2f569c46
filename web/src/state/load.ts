import { useEffect, useRef, useState } from "preact/hooks";
import { comebacks } from "./reachable";
import { useStore } from "./store";

/** The state of data from the API. */
export interface Loaded<T> {
  /** The last data, also during a reload or after a failed one. */
  data: T | undefined;
  error: unknown;
  busy: boolean;
  reload: () => void;
  /** Replaces the loaded data by a known value. */
  put: (data: T) => void;
}

interface Held<T> {
  key: string;
  data: T | undefined;
  error: unknown;
  busy: boolean;
}

/**
 * Loads when `key` changes, when the app is reachable again, and on `reload`. Data of another key is not returned.
 * A change of `mark` says that the data may have changed: it is loaded again, and meanwhile stays as it is.
 */
export function useLoad<T>(key: string, load: (signal: AbortSignal) => Promise<T>, mark = ""): Loaded<T> {
  const [held, setHeld] = useState<Held<T>>({ key, data: undefined, error: undefined, busy: true });
  const [turn, setTurn] = useState(0);
  const back = useStore(comebacks);
  const latest = useRef(load);
  latest.current = load;
  /** Whether it loads, and whether it is to load again after that. An answer that takes long is not given up for a new one. */
  const loading = useRef({ now: false, again: false });
  const reload = (): void => {
    if (loading.current.now) loading.current.again = true;
    else setTurn((now) => now + 1);
  };
  useEffect(() => {
    const mine = { now: true, again: false };
    loading.current = mine;
    const ended = (): void => {
      mine.now = false;
      if (mine.again) setTurn((now) => now + 1);
    };
    const abort = new AbortController();
    setHeld((now) => ({ key, data: now.key === key ? now.data : undefined, error: now.error, busy: true }));
    latest
      .current(abort.signal)
      .then((data) => {
        if (abort.signal.aborted) return;
        setHeld({ key, data, error: undefined, busy: false });
        ended();
      })
      .catch((error: unknown) => {
        if (abort.signal.aborted) return;
        setHeld((now) => ({ ...now, key, error, busy: false }));
        ended();
      });
    return () => abort.abort();
  }, [key, turn, back]);
  const marked = useRef(mark);
  useEffect(() => {
    if (marked.current === mark) return;
    marked.current = mark;
    reload();
  }, [mark]);
  const current = held.key === key;
  return {
    data: current ? held.data : undefined,
    error: current && !held.busy ? held.error : undefined,
    busy: held.busy || !current,
    reload,
    put: (data) => setHeld({ key, data, error: undefined, busy: false }),
  };
}
