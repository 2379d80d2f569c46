import { useEffect, useState } from "preact/hooks";
import { onEvent, onMissed } from "../api/events";
import { call, type Schemas } from "../api/client";
import { useLoad, type Loaded } from "../state/load";
import { isObject } from "../form/draft";
import type { Prediction } from "./result";

export type Details = Prediction & Pick<Schemas["PredictionDetails"], "input" | "features">;

/** How often the place in the queue is read while the prediction waits. */
const LOOK_EVERY_MS = 3000;

/** A prediction that is kept up to date, by the account's events and by polling until it ends. */
export function useFollowed(id: string): Loaded<Details> {
  const loaded = useLoad(`prediction ${id}`, (signal) =>
    call("get", "/predictions/{prediction_id}", { path: { prediction_id: id }, signal }),
  );
  const { data, reload } = loaded;
  const [, tick] = useState(0);
  useEffect(() => {
    const forget = onEvent((event) => {
      if (isObject(event.data) && event.data["id"] === id) reload();
    });
    const forgetMissed = onMissed(reload);
    return () => {
      forget();
      forgetMissed();
    };
    // eslint-disable-next-line react-hooks/exhaustive-deps -- `reload` does the same at every drawing
  }, [id]);
  const waiting = data?.status === "queued";
  useEffect(() => {
    if (!waiting) return undefined;
    const timer = setInterval(() => {
      tick((n) => n + 1);
      if (!document.hidden) reload();
    }, LOOK_EVERY_MS);
    return () => clearInterval(timer);
    // eslint-disable-next-line react-hooks/exhaustive-deps -- as above
  }, [waiting, id]);
  return loaded;
}
