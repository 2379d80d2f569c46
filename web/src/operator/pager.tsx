import { t } from "../words";

/** Newest and older: lists come by keyset, so there is no page seventeen. */
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
