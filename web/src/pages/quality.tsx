import type { Schemas } from "../api/client";
import { formatNumber, said, t } from "../words";

/** The quality of a model from its report; nothing without one. `brief`: only the first measure. */
export function Quality({ model, brief = false }: { model: Schemas["Model"]; brief?: boolean }) {
  const measures = brief ? model.quality.slice(0, 1) : model.quality;
  if (measures.length === 0) return null;
  return (
    <dl class={`quality small${brief ? " brief" : ""}`} aria-label={t("quality")}>
      {measures.map((measure) => (
        <div key={measure.name}>
          <dt>
            {said(measure.title)} <strong class="number">{formatNumber(measure.value, 3)}</strong>
          </dt>
          <dd class="muted">{said(measure.meaning)}</dd>
        </div>
      ))}
    </dl>
  );
}
