import type { Schemas } from "../api/client";
import type { Key } from "../words";

type Movement = Pick<Schemas["Transaction"], "kind" | "reference" | "note">;

/** What a movement of credits is called. In the ledger, a refund of Telegram Stars is an adjustment. */
export function nameOf(movement: Movement): Key {
  if (movement.reference?.startsWith("telegram-refund:")) return "movement_stars_refund";
  return `movement_${movement.kind}`;
}

/** How many Telegram Stars were paid or returned, if the movement is about them. */
export function starsOf(movement: Movement): number | null {
  if (!/^telegram(-refund)?:/.test(movement.reference ?? "")) return null;
  const found = /^(?:refund of )?(\d+) Telegram Stars?$/.exec(movement.note ?? "");
  return found ? Number(found[1]) : null;
}
