import type { Schemas } from "../api/client";
import { formatNumber, said, t, type Words } from "../words";

interface Measure {
  name: string | Words;
  value: number | string;
  meaning?: Words | string | null;
}

function textOfWords(words: string | Words | null | undefined): string {
  return typeof words === "string" ? words : said(words);
}

/** How good a model is, from its report; nothing where it has none. */
export function Quality({ model }: { model: Schemas["Model"] }) {
  const measures = (model as { quality?: Measure[] | null }).quality ?? [];
  if (measures.length === 0) return null;
  return (
    <dl class="facts small" aria-label={t("quality")}>
      {measures.map((measure) => (
        <>
          <dt>{textOfWords(measure.name)}</dt>
          <dd>
            <strong class="number">
              {typeof measure.value === "number" ? formatNumber(measure.value, 3) : measure.value}
            </strong>{" "}
            {measure.meaning && <span class="muted">{textOfWords(measure.meaning)}</span>}
          </dd>
        </>
      ))}
    </dl>
  );
}
