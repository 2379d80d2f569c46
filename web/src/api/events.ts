/**
 * One stream of the account's changes for all tabs of a browser. Browsers allow six HTTP/1.1 connections to a host, so
 * with one stream for each tab, the seventh tab would hang. The tab that holds a lock has the stream and forwards what
 * comes.
 *
 * `GET /events` is not used: its events are written with every prediction of the account, for a week.
 */
import { isReachable } from "../state/reachable";
import type { Schemas } from "./client";

/** `changed`: a prediction was accepted or ended, or credits moved. While this goes on, one comes every 3 s. */
export type AccountEvent = { type: "changed"; balance: Schemas["Balance"] } | { type: "endpoint.disabled" };
type Listener = (event: AccountEvent) => void;
/** A message between tabs: an event, or that the stream has begun and earlier changes may have been missed. */
type Message = { event: AccountEvent } | { again: true };

const LOCK = "foretell-events";
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 20_000;

const listeners = new Set<Listener>();
const misses = new Set<() => void>();
let channel: BroadcastChannel | null = null;
let ending: AbortController | null = null;

/** Subscribes to all events of the account. Returns a function that unsubscribes. */
export function onEvent(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Subscribes to possible losses of events, after which the state must be read from the API again. */
export function onMissed(listener: () => void): () => void {
  misses.add(listener);
  return () => misses.delete(listener);
}

/** Subscribes to everything after which a list must be read again. */
export function onChanged(listener: () => void): () => void {
  const forget = [onEvent((event) => event.type === "changed" && listener()), onMissed(listener)];
  return () => {
    for (const each of forget) each();
  };
}

/** Opens the stream; called after the sign-in. */
export function openEvents(): void {
  if (ending) return;
  ending = new AbortController();
  const { signal } = ending;
  if (typeof BroadcastChannel !== "undefined") {
    channel = new BroadcastChannel(LOCK);
    channel.addEventListener("message", (message: MessageEvent<Message>) => take(message.data));
  }
  if (channel && "locks" in navigator) {
    // Held until the tab is closed or signs out; then the next tab gets it.
    void navigator.locks.request(LOCK, { signal }, () => keepStream(signal)).catch(() => undefined);
  } else {
    // Without a secure context there are no locks, and each tab has its own stream.
    void keepStream(signal);
  }
}

export function closeEvents(): void {
  ending?.abort();
  ending = null;
  channel?.close();
  channel = null;
}

function take(message: Message): void {
  if ("again" in message) for (const listener of [...misses]) listener();
  else for (const listener of [...listeners]) listener(message.event);
}

function tell(message: Message): void {
  take(message);
  channel?.postMessage(message);
}

async function keepStream(signal: AbortSignal): Promise<void> {
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    const began = Date.now();
    await oneStream(signal);
    // Wait longer after a short connection, which would probably fail again: the app is down, or the session has ended.
    wait = Date.now() - began > LONGEST_WAIT_MS ? FIRST_WAIT_MS : Math.min(wait * 2, LONGEST_WAIT_MS);
    await pause(wait, signal);
  }
}

/** One connection; resolves when it ends for any reason. */
function oneStream(signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) {
      done();
      return;
    }
    const source = new EventSource("/events/changes");
    const end = (): void => {
      source.close();
      done();
    };
    signal.addEventListener("abort", end, { once: true });
    // Also the first time: what was read before may have changed since.
    source.addEventListener("open", () => tell({ again: true }));
    // Reconnect ourselves: the browser would not retry after every status.
    source.addEventListener("error", () => {
      signal.removeEventListener("abort", end);
      end();
    });
    source.addEventListener("changed", (message: MessageEvent<string>) =>
      tell({ event: { type: "changed", balance: JSON.parse(message.data) as Schemas["Balance"] } }),
    );
    source.addEventListener("endpoint.disabled", () => tell({ event: { type: "endpoint.disabled" } }));
  });
}

/** Calls `ended` when a prediction has ended. Returns a function that stops following it. */
export function followPrediction(id: string, ended: () => void): () => void {
  // The browser connects again by itself, and stops after a refusal.
  const source = new EventSource(`/predictions/${encodeURIComponent(id)}/events`);
  source.addEventListener("prediction", (message: MessageEvent<string>) => {
    if ((JSON.parse(message.data) as Schemas["Prediction"]).status === "queued") return;
    source.close();
    ended();
  });
  return () => source.close();
}

/** Waits until the time is over, the app is reachable again, or `signal` is aborted. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const finish = (): void => {
      clearTimeout(timer);
      unsubscribe();
      signal.removeEventListener("abort", finish);
      done();
    };
    const timer = setTimeout(finish, ms);
    const unsubscribe = isReachable.subscribe(() => {
      if (isReachable.get()) finish();
    });
    signal.addEventListener("abort", finish);
  });
}
