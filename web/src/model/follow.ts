import { useEffect, useState } from "preact/hooks";
import { followPrediction, onChanged } from "../api/events";
import { call, type Schemas } from "../api/client";
import { useLoad, type Loaded } from "../state/load";
import type { Prediction } from "./result";

export type Details = Prediction & Pick<Schemas["PredictionDetails"], "input" | "features">;

/** How often the place in the queue is read while the prediction waits. */
const LOOK_EVERY_MS = 3000;

/**
 * A prediction that is kept up to date until it ends: by a stream of its own while the tab is visible (browsers allow
 * few connections to a host), else by the account's changes.
 */
export function useFollowed(id: string): Loaded<Details> {
  const loaded = useLoad(`prediction ${id}`, (signal) =>
    call("get", "/predictions/{prediction_id}", { path: { prediction_id: id }, signal }),
  );
  const { data, reload } = loaded;
  const visible = useVisible();
  const waiting = data?.status === "queued";
  useEffect(() => {
    if (!waiting) return undefined;
    if (!visible) return onChanged(reload);
    const forget = followPrediction(id, reload);
    // The time that it has waited, and its place in the queue.
    const timer = setInterval(reload, LOOK_EVERY_MS);
    return () => {
      forget();
      clearInterval(timer);
    };
    // eslint-disable-next-line react-hooks/exhaustive-deps -- `reload` does the same at every drawing
  }, [waiting, visible, id]);
  return loaded;
}

function useVisible(): boolean {
  const [visible, setVisible] = useState(!document.hidden);
  useEffect(() => {
    const look = (): void => setVisible(!document.hidden);
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, []);
  return visible;
}
