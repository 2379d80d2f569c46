import { t } from "../words";

/** Buttons for the newest and the older page; with keyset pagination there are no page numbers. */
export function Pager({
  first,
  next,
  go,
}: {
  first: boolean;
  next: string | null;
  go: (cursor: string | null) => void;
}) {
  if (first && next === null) return null;
  return (
    <nav class="row apart" aria-label={t("pages")}>
      {first ? (
        <span />
      ) : (
        <button class="button" type="button" onClick={() => go(null)}>
          {t("newest")}
        </button>
      )}
      {next !== null && (
        <button class="button" type="button" onClick={() => go(next)}>
          {t("older")}
        </button>
      )}
    </nav>
  );
}
