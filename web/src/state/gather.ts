/** Runs something once for all calls within a time. */
export interface Gathering {
  call: () => void;
  /** Drops a run that has not begun. */
  stop: () => void;
}

export function gather(ms: number, run: () => void): Gathering {
  let timer: ReturnType<typeof setTimeout> | undefined;
  return {
    call() {
      timer ??= setTimeout(() => {
        timer = undefined;
        run();
      }, ms);
    },
    stop: () => clearTimeout(timer),
  };
}
