/**
 * One stream of the account's events for all tabs of a browser. HTTP/1.1 allows six connections to a host: with one
 * for each tab, the seventh would hang. The tab that holds a lock keeps the stream and tells the others.
 */
import { isReachable } from "../state/reachable";
import type { Schemas } from "./client";

export type AccountEvent = Omit<Schemas["Event"], "data"> & { data: unknown };
type Listener = (event: AccountEvent) => void;
/** What tabs tell each other: an event, or that the stream is there again and some may have been missed. */
type Message = { event: AccountEvent } | { again: true };

const LOCK = "foretell-events";
const TYPES = ["prediction.finished", "balance.low", "endpoint.disabled"];
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 20_000;

const listeners = new Set<Listener>();
const misses = new Set<() => void>();
let channel: BroadcastChannel | null = null;
let ending: AbortController | null = null;
let last = 0;

/** Hear of every event while someone is signed in. Returns what ends it. */
export function onEvent(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Hear that events may have been missed: ask the API how things stand. */
export function onMissed(listener: () => void): () => void {
  misses.add(listener);
  return () => misses.delete(listener);
}

/** Begin to listen; called once somebody is signed in. */
export function openEvents(): void {
  if (ending) return;
  ending = new AbortController();
  const { signal } = ending;
  if (typeof BroadcastChannel !== "undefined") {
    channel = new BroadcastChannel(LOCK);
    channel.addEventListener("message", (message: MessageEvent<Message>) => take(message.data));
  }
  if (channel && "locks" in navigator) {
    // Held until the tab goes or signs out; then the next tab has it.
    void navigator.locks.request(LOCK, { signal }, () => keepStream(signal)).catch(() => undefined);
  } else {
    // Without a secure context there are no locks: each tab has a stream of its own.
    void keepStream(signal);
  }
}

export function closeEvents(): void {
  ending?.abort();
  ending = null;
  channel?.close();
  channel = null;
  last = 0;
}

function take(message: Message): void {
  if ("again" in message) {
    for (const listener of [...misses]) listener();
    return;
  }
  // The same event comes twice where the stream was taken over by another tab.
  if (message.event.sequence <= last) return;
  last = message.event.sequence;
  for (const listener of [...listeners]) listener(message.event);
}

function tell(message: Message): void {
  take(message);
  channel?.postMessage(message);
}

async function keepStream(signal: AbortSignal): Promise<void> {
  let wait = FIRST_WAIT_MS;
  let first = true;
  while (!signal.aborted) {
    const began = Date.now();
    await oneStream(signal, () => {
      if (!first) tell({ again: true });
      first = false;
    });
    // What broke at once breaks again: the app is away, or the session is over.
    wait = Date.now() - began > LONGEST_WAIT_MS ? FIRST_WAIT_MS : Math.min(wait * 2, LONGEST_WAIT_MS);
    await pause(wait, signal);
  }
}

/** One connection, from its beginning to its end, whoever ends it. */
function oneStream(signal: AbortSignal, opened: () => void): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) {
      done();
      return;
    }
    const source = new EventSource(last ? `/events?after=${last}` : "/events");
    const end = (): void => {
      source.close();
      done();
    };
    signal.addEventListener("abort", end, { once: true });
    source.addEventListener("open", opened);
    // The browser would come again by itself, but with the address of before and not for every status.
    source.addEventListener("error", () => {
      signal.removeEventListener("abort", end);
      end();
    });
    for (const type of TYPES)
      source.addEventListener(type, (message: MessageEvent<string>) =>
        tell({ event: JSON.parse(message.data) as AccountEvent }),
      );
  });
}

/** Until the time is over, the app is back or there is nothing to wait for any more. */
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
