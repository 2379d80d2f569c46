import { formatPercent } from "../words";

const RADIUS = 80;
const LENGTH = Math.PI * RADIUS;

/** A probability as a half circle, with the number as text for screen readers. */
export function Gauge({ value, label }: { value: number; label: string }) {
  const part = Math.max(0, Math.min(1, value)) * LENGTH;
  return (
    <svg class="gauge" viewBox="0 0 200 116" role="img" aria-label={`${label}: ${formatPercent(value)}`}>
      <path class="track" d="M20 100 A80 80 0 0 1 180 100" fill="none" stroke-width="16" stroke-linecap="round" />
      {part > 0 && (
        <path
          class="value"
          d="M20 100 A80 80 0 0 1 180 100"
          fill="none"
          stroke-width="16"
          stroke-linecap="round"
          stroke-dasharray={`${part} ${LENGTH + 20}`}
        />
      )}
      <text x="100" y="98" text-anchor="middle">
        {formatPercent(value)}
      </text>
    </svg>
  );
}

export interface Bar {
  name: string;
  value: number;
  chosen: boolean;
}

/** All classes, each with its probability. */
export function Bars({ bars, label }: { bars: readonly Bar[]; label: string }) {
  return (
    <ul class="bars" aria-label={label}>
      {bars.map((bar) => (
        <li key={bar.name} class={`bar${bar.chosen ? " chosen" : ""}`}>
          <span class="bar-name">{bar.name}</span>
          <span class="bar-track" aria-hidden="true">
            <span
              class="bar-fill"
              style={{ display: "block", width: `${Math.max(0, Math.min(1, bar.value)) * 100}%` }}
            />
          </span>
          <span class="number to-right">{formatPercent(bar.value)}</span>
        </li>
      ))}
    </ul>
  );
}
