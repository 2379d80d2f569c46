/** Estimates from workers and queues whether there are enough workers, and how many would be enough. */

export interface Load {
  /** Running workers, and those that are busy now. */
  live: number;
  busy: number;
  /** Predictions that have not ended. */
  queued: number;
  /** The age of the oldest of them, in seconds. */
  oldestS: number;
  /** The throughput of all workers, in tasks per second. */
  perS: number;
}

export interface Advice {
  kind: "none" | "more" | "fewer" | "stuck" | "enough";
  /** The estimated number of workers that is enough. */
  workers: number;
  /** The time to finish the waiting tasks, in seconds; null without any throughput. */
  drainS: number | null;
}

/** The queue is too slow when the oldest task is older than this. */
const LONG_S = 10;
/** The time within which a backlog should be finished. */
const WORKED_OFF_S = 30;
/** The largest suggested increase, since a larger one would be a guess. */
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
