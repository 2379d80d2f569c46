import { formatAgo, formatMoment, formatSecond, t, type Key } from "../words";

const COLORS: Record<string, string> = { succeeded: "good", failed: "bad", queued: "accent", canceled: "" };

/** How a prediction stands: a word, and a colour besides. */
export function Status({ status }: { status: string }) {
  return <span class={`chip ${COLORS[status] ?? ""}`}>{t(`status_${status}` as Key)}</span>;
}

/** A moment, as people say it; with its second if `exact`, and whole under the pointer. */
export function Moment({ at, ago = false, exact = false }: { at: string; ago?: boolean; exact?: boolean }) {
  return (
    <time dateTime={at} title={formatMoment(at, true)} class="number">
      {ago ? formatAgo(at) : exact ? formatSecond(at) : formatMoment(at)}
    </time>
  );
}

export function Credits({ n }: { n: number }) {
  return <span class="number">{t("credits", { n })}</span>;
}
