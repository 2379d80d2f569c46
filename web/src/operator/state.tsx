import { textOf } from "../words";

const COLORS: Record<string, string> = {
  healthy: "good",
  ok: "good",
  stable: "good",
  degraded: "warn",
  pending: "warn",
  warning: "warn",
  shifting: "warn",
  unhealthy: "bad",
  down: "bad",
  missing: "bad",
  crashed: "bad",
  firing: "bad",
  critical: "bad",
  error: "bad",
  wrong: "bad",
  drifted: "bad",
};

/** A state as a word with a colour. */
export function State({ state }: { state: string }) {
  const name = state.toLowerCase();
  return <span class={`chip ${COLORS[name] ?? ""}`}>{textOf(`o_is_${name}`, {}, name.replaceAll("_", " "))}</span>;
}
