import { formatAgo, formatMoment, formatSecond, t, type Key } from "../words";

const COLORS: Record<string, string> = { succeeded: "good", failed: "bad", queued: "accent", canceled: "" };

/** The status of a prediction as a word with a colour. */
export function Status({ status }: { status: string }) {
  return <span class={`chip ${COLORS[status] ?? ""}`}>{t(`status_${status}` as Key)}</span>;
}

/** A time in short form, with seconds if `exact`; the full time is the tooltip. */
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
