import type { ComponentChildren, TargetedSubmitEvent } from "preact";
import { useId, useRef, useState } from "preact/hooks";
import { Problem, stepsOf } from "../api/problem";
import { explain, isSessionOver } from "./states";

/** The errors of a plain form by input name; errors that belong to no input are under "". */
export type Wrong = Readonly<Record<string, string>>;

/** Names of the inputs to which problems belong that name no field, by code. */
type Belongs = Readonly<Record<string, string>>;

export function wrongOf(error: unknown, names: readonly string[], belongs: Belongs = {}): Wrong {
  if (error === undefined || isSessionOver(error)) return {};
  if (!(error instanceof Problem)) return { "": explain(error) };
  if (error.errors.length === 0) return { [belongs[error.code] ?? ""]: explain(error) };
  const wrong: Record<string, string> = {};
  for (const each of error.errors) {
    const name = each.pointer ? (stepsOf(each.pointer)[0] ?? "") : (each.parameter ?? "");
    wrong[names.includes(name) ? name : ""] ??= each.detail ?? error.message;
  }
  return wrong;
}

/** A label, its control, a hint and an error, connected for screen readers. */
export function Field({
  label,
  hint,
  wrong,
  children,
}: {
  label: ComponentChildren;
  hint?: string;
  wrong?: string;
  children: (control: { id: string; "aria-describedby"?: string; "aria-invalid"?: boolean }) => ComponentChildren;
}) {
  const id = useId();
  const described = [hint && `${id}-hint`, wrong && `${id}-wrong`].filter(Boolean).join(" ");
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({ id, "aria-describedby": described || undefined, "aria-invalid": wrong ? true : undefined })}
      {hint && (
        <span class="hint" id={`${id}-hint`}>
          {hint}
        </span>
      )}
      {wrong && (
        <span class="wrong" id={`${id}-wrong`}>
          {wrong}
        </span>
      )}
    </div>
  );
}

/** A form that a script sends: it can't be sent twice at once, and keeps its errors. */
export function useSending(send: () => Promise<unknown>): {
  busy: boolean;
  error: unknown;
  submit: (event: TargetedSubmitEvent<HTMLFormElement>) => void;
} {
  const [busy, setBusy] = useState(false);
  /** As `busy`, but right before the next rendering: two presses may come before it. */
  const sending = useRef(false);
  const [error, setError] = useState<unknown>();
  const submit = (event: TargetedSubmitEvent<HTMLFormElement>): void => {
    event.preventDefault();
    if (sending.current) return;
    const form = event.currentTarget;
    sending.current = true;
    setBusy(true);
    setError(undefined);
    send()
      .catch((failed: unknown) => {
        setError(failed);
        // Focus the first invalid input, after the rendering that marks it.
        setTimeout(() => form.querySelector<HTMLElement>("[aria-invalid]")?.focus());
      })
      .finally(() => {
        sending.current = false;
        setBusy(false);
      });
  };
  return { busy, error, submit };
}
