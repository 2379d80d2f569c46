/** How far apart two runs are at least, however many calls there are. */
const APART_MS = 1000;

/** Runs something once for all calls within a time. */
export interface Gathering {
  call: () => void;
  /** Drops a run that has not begun. */
  stop: () => void;
}

export function gather(ms: number, run: () => void): Gathering {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let ran = -Infinity;
  return {
    call() {
      timer ??= setTimeout(
        () => {
          timer = undefined;
          ran = performance.now();
          run();
        },
        Math.max(ms, ran + APART_MS - performance.now()),
      );
    },
    stop: () => clearTimeout(timer),
  };
}
