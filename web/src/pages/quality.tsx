import type { Schemas } from "../api/client";
import { formatNumber, said, t } from "../words";

/** How good a model is, from its report; nothing where it has none. `brief`: the first measure alone. */
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
