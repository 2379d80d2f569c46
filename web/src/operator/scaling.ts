/** What workers and their queues say together: whether there are enough workers, and how many would be. */

export interface Load {
  /** Workers that run, and those that work just now. */
  live: number;
  busy: number;
  /** Predictions that have not ended. */
  queued: number;
  /** How long the oldest of them waits, in seconds. */
  oldestS: number;
  /** How many tasks a second all workers do. */
  perS: number;
}

export interface Advice {
  kind: "none" | "more" | "fewer" | "stuck" | "enough";
  /** How many workers there should be about. */
  workers: number;
  /** How long it takes to work off what waits, in seconds; null where nothing is done. */
  drainS: number | null;
}

/** What waits longer than this makes people wait. */
const LONG_S = 10;
/** How soon a backlog should be worked off. */
const WORKED_OFF_S = 30;
/** More at once is a guess: see what a doubling does first. */
const MOST_TIMES = 2;

export function adviceFor(load: Load): Advice {
  const { live, busy, queued, oldestS, perS } = load;
  const drainS = queued === 0 ? 0 : perS > 0 ? queued / perS : null;
  if (live === 0) return { kind: "none", workers: 3, drainS };
  if (oldestS > LONG_S && perS === 0) return { kind: "stuck", workers: live, drainS };
  if (oldestS > LONG_S && busy === live && drainS !== null) {
    const wanted = Math.ceil((live * drainS) / WORKED_OFF_S);
    return { kind: "more", workers: Math.min(Math.max(wanted, live + 1), live * MOST_TIMES + 1), drainS };
  }
  if (live > 1 && queued === 0 && busy * 4 < live) {
    return { kind: "fewer", workers: Math.max(1, Math.ceil(live / 2)), drainS };
  }
  return { kind: "enough", workers: live, drainS };
}
