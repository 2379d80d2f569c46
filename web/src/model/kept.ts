import { people } from "../state/session";
import type { Drafts, Model } from "./ask";

/** What stands in the form of a model. */
export interface Kept {
  drafts: Drafts;
  /** The text in the JSON editor while it is open, else null. */
  json: string | null;
  /** The prediction with whose input the form was filled. */
  filled: string | null;
}

/** By model and version, until a reload or until another person uses this tab. */
const forms = new Map<string, Kept>();
people.subscribe(() => forms.clear());

/** What was typed before another page was opened: signing up, a look at the balance, or *back* loses nothing. */
export function keptForm(model: Model): Kept | undefined {
  return forms.get(`${model.name} ${model.version}`);
}

export function keepForm(model: Model, form: Kept): void {
  forms.set(`${model.name} ${model.version}`, form);
}
