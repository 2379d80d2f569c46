import { formatNumber, formatPercent, textOf } from "../words";
import "../styles/distribution.css";
import type { Schemas } from "../api/client";
import { TableFrame } from "../parts/table";

const WIDTH = 300;
const HEIGHT = 90;

/** Shares by bin, of the reference and of current data, as pairs of bars. */
export function Distribution({ name, shares }: { name: string; shares: Schemas["Distribution"] }) {
  const bins = binsOf(shares);
  const most = Math.max(...bins.map((bin) => Math.max(bin.reference, bin.seen)), 0.001);
  const step = WIDTH / bins.length;
  const bar = Math.min(step * 0.42, 28);
  const height = (share: number): number => (share / most) * HEIGHT;
  return (
    <figure class="stack tight">
      <svg
        class="distribution"
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={textOf("o_distributionOf", { name, most: formatPercent(most) })}
      >
        {bins.map((bin, index) => (
          <g key={bin.name}>
            <title>{`${bin.name}: ${formatPercent(bin.reference)} → ${formatPercent(bin.seen)}`}</title>
            {([bin.reference, bin.seen] as const).map((share, which) => (
              <rect
                key={which}
                class={which === 0 ? "reference" : "seen"}
                x={(index + 0.5) * step - bar + which * bar}
                y={HEIGHT - height(share)}
                width={bar}
                height={height(share)}
              />
            ))}
          </g>
        ))}
      </svg>
      <figcaption class="row apart small">
        <span class="muted">{bins[0]?.name}</span>
        <span class="distribution-key">
          <span class="reference">{textOf("o_reference")}</span> <span class="seen">{textOf("o_seen")}</span>
        </span>
        <span class="muted">{bins.length > 1 ? bins.at(-1)?.name : ""}</span>
      </figcaption>
      <details class="small">
        <summary>{textOf("o_asTable")}</summary>
        <TableFrame label={name}>
          <table>
            <thead>
              <tr>
                <th scope="col">{textOf("o_value")}</th>
                <th scope="col" class="to-right">
                  {textOf("o_reference")}
                </th>
                <th scope="col" class="to-right">
                  {textOf("o_seen")}
                </th>
              </tr>
            </thead>
            <tbody>
              {bins.map((bin) => (
                <tr key={bin.name}>
                  <td>{bin.name}</td>
                  <td class="number to-right">{formatPercent(bin.reference)}</td>
                  <td class="number to-right">{formatPercent(bin.seen)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableFrame>
      </details>
    </figure>
  );
}

interface Bin {
  name: string;
  reference: number;
  seen: number;
}

/** The names of the bins: for numbers the edges, with the outer bins open; for texts the categories, and "others". */
export function binsOf(shares: Schemas["Distribution"]): Bin[] {
  const last = shares.reference.length - 1;
  const nameOf = (index: number): string => {
    if (shares.categories) return shares.categories[index] ?? textOf("o_others");
    const [low, high] = [shares.edges?.[index], shares.edges?.[index + 1]];
    if (low === undefined || high === undefined) return String(index + 1);
    if (index === 0 && last > 0) return `< ${formatNumber(high)}`;
    return index === last ? `≥ ${formatNumber(low)}` : `${formatNumber(low)} – ${formatNumber(high)}`;
  };
  return shares.reference.map((reference, index) => ({
    name: nameOf(index),
    reference,
    seen: shares.seen[index] ?? 0,
  }));
}
