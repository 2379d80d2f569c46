import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Problem, stepsOf, Unreachable } from "../api/problem";
import type { Loaded } from "../state/load";
import { hasText, language, t, textOf } from "../words";

/** The text of an error: ours if there is one for its code, else the API's. */
export function explain(error: unknown): string {
  if (error instanceof Unreachable) return t("unreachable");
  if (!(error instanceof Problem)) return t("somethingBroke");
  const key = `problem_${error.code}`;
  const values = Object.fromEntries(
    Object.entries(error.body).filter(
      (entry): entry is [string, string | number] => typeof entry[1] === "string" || typeof entry[1] === "number",
    ),
  );
  // The API's text is English and more precise.
  if (language() !== "en" && hasText(key)) return textOf(key, { ...values, wait_s: error.retryAfterS ?? 60 });
  return error.message;
}

/** An error with its text and a button to retry. */
export function Failure({
  error,
  retry,
  says,
  wayOut,
}: {
  error: unknown;
  retry?: () => void;
  /** A text in place of the error's. */
  says?: ComponentChildren;
  /** A link or button for errors that a retry can't fix. */
  wayOut?: ComponentChildren;
}) {
  const noCredits = error instanceof Problem && error.code === "not_enough_credits";
  const unfit = error instanceof Problem && (error.status === 404 || error.status === 422);
  const errors = error instanceof Problem && says === undefined ? error.errors : [];
  return (
    <div class={`notice ${noCredits ? "warn" : "bad"}`} role="alert">
      <strong>{noCredits ? t("outOfCredits") : t("didNotWork")}</strong>
      {errors.length === 0 ? (
        <p>{says ?? explain(error)}</p>
      ) : (
        <ul class="stack tight">
          {errors.map((each, index) => (
            <li key={index}>
              <code>{each.parameter ?? each.header ?? stepsOf(each.pointer ?? "").join("/")}</code>: {each.detail}
            </li>
          ))}
        </ul>
      )}
      {error instanceof Problem && error.outcome === "unknown" && <p class="small muted">{t("mayHaveHappened")}</p>}
      <div class="row">
        {noCredits ? (
          <a class="button" href="/ui/balance">
            {t("toBalance")}
          </a>
        ) : (
          retry &&
          !unfit && (
            <button class="button" type="button" onClick={retry}>
              {t("retry")}
            </button>
          )
        )}
        {wayOut}
      </div>
    </div>
  );
}

/** A placeholder while something loads. `rows` is the approximate number of lines. */
export function Waiting({ rows = 3 }: { rows?: number }) {
  return (
    <div class="stack tight" role="status" aria-label={t("loading")}>
      {Array.from({ length: rows }, (_, row) => (
        <div key={row} class="waiting" style={{ height: "2.5rem" }} />
      ))}
    </div>
  );
}

/** Shows loaded data, a placeholder or an error. Earlier data stays visible during a reload. */
export function Show<T>({
  loaded,
  rows,
  fail,
  children,
}: {
  loaded: Loaded<T>;
  rows?: number;
  /** How to show an error, in place of `Failure`. */
  fail?: (error: unknown, retry: () => void) => ComponentChildren;
  children: (data: T) => ComponentChildren;
}) {
  const { data, reload } = loaded;
  // The banner or the dialog of the session shows this for the whole page, and `useLoad` retries by itself.
  const error = loaded.error instanceof Unreachable || isSessionOver(loaded.error) ? undefined : loaded.error;
  const failed = error === undefined ? null : fail ? fail(error, reload) : <Failure error={error} retry={reload} />;
  if (data === undefined) return failed ? <>{failed}</> : <Waiting rows={rows} />;
  return (
    <div class="stack" aria-busy={loaded.busy}>
      {failed}
      {children(data)}
    </div>
  );
}

/** Whether the dialog of the session says what is wrong. */
export function isSessionOver(error: unknown): boolean {
  return error instanceof Problem && error.status === 401 && error.code !== "invalid_credentials";
}

export function Empty({ children, action }: { children: ComponentChildren; action?: ComponentChildren }) {
  return (
    <div class="empty card">
      <p>{children}</p>
      {action}
    </div>
  );
}

/** A button for a slow action: it can't be pressed twice, and shows the error. */
export function ActButton({
  act,
  children,
  kind = "",
  disabled = false,
}: {
  act: () => Promise<unknown>;
  children: ComponentChildren;
  kind?: string;
  disabled?: boolean;
}) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const press = async (): Promise<void> => {
    // Not disabled meanwhile, because a disabled button loses the focus.
    if (busy) return;
    setBusy(true);
    setError(undefined);
    try {
      await act();
    } catch (failed) {
      if (!isSessionOver(failed)) setError(failed);
    } finally {
      setBusy(false);
    }
  };
  return (
    <span class="act">
      <button class={`button ${kind}`} type="button" disabled={disabled} aria-busy={busy} onClick={press}>
        {children}
      </button>
      {error !== undefined && (
        <span class="wrong small" role="alert">
          {explain(error)}
        </span>
      )}
    </span>
  );
}
