import type { ComponentChildren } from "preact";
import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { t } from "../words";
import { explain, isSessionOver } from "./states";

/** A modal dialog. The browser keeps the focus inside; the dialog restores it afterwards. */
export function Dialog({
  title,
  close,
  children,
}: {
  title: string;
  /** Without it, the user can't close the dialog. */
  close?: () => void;
  children: ComponentChildren;
}) {
  const box = useRef<HTMLDialogElement>(null);
  const id = useId();
  useLayoutEffect(() => {
    const dialog = box.current;
    const opener = document.activeElement;
    dialog?.showModal();
    return () => {
      dialog?.close();
      // The browser restores the focus only while the dialog is still in the document.
      if (opener instanceof HTMLElement) opener.focus();
    };
  }, []);
  return (
    <dialog
      ref={box}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        close?.();
      }}
    >
      <div class="stack">
        <h2 id={id}>{title}</h2>
        {children}
      </div>
    </dialog>
  );
}

/** Asks for confirmation before an action that can't be undone. */
export function Confirm({
  title,
  children,
  action,
  act,
  close,
}: {
  title: string;
  children: ComponentChildren;
  action: string;
  act: () => Promise<unknown>;
  close: () => void;
}) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const press = async (): Promise<void> => {
    if (busy) return;
    setBusy(true);
    try {
      await act();
      close();
    } catch (failed) {
      if (!isSessionOver(failed)) setError(failed);
      setBusy(false);
    }
  };
  return (
    <Dialog title={title} close={close}>
      <div>{children}</div>
      {error !== undefined && (
        <p class="wrong" role="alert">
          {explain(error)}
        </p>
      )}
      <div class="row end">
        <button class="button" type="button" onClick={close}>
          {t("cancel")}
        </button>
        <button class="button danger" type="button" aria-busy={busy} onClick={press}>
          {action}
        </button>
      </div>
    </Dialog>
  );
}
