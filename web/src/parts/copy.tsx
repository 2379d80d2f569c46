import { useEffect, useState } from "preact/hooks";
import { t } from "../words";

async function put(text: string): Promise<void> {
  // The clipboard API exists only in a secure context; otherwise use `execCommand`.
  if ("clipboard" in navigator && isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  // While a dialog is open, elements outside it can't have the focus.
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  // eslint-disable-next-line @typescript-eslint/no-deprecated -- there is no other way without TLS
  document.execCommand("copy");
  area.remove();
}

/** Copies a text, and announces it to screen readers, too. */
export function CopyButton({ text, label }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return undefined;
    const timer = setTimeout(() => setDone(false), 2500);
    return () => clearTimeout(timer);
  }, [done]);
  return (
    <button class="button little" type="button" onClick={() => void put(text).then(() => setDone(true))}>
      <span aria-live="polite">{done ? t("copied") : (label ?? t("copy"))}</span>
    </button>
  );
}

/** A secret that is shown only once. */
export function Secret({ value, label }: { value: string; label: string }) {
  return (
    <div class="notice good">
      <strong>{label}</strong>
      <p class="small">{t("shownOnce")}</p>
      <div class="row">
        <code class="grow">{value}</code>
        <CopyButton text={value} />
      </div>
    </div>
  );
}
