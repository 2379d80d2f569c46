import { makeStore } from "./store";

export type Theme = "light" | "dark" | null;
const KEPT_AS = "foretell-theme";

/** Light, dark, or null: as the system is. */
export const theme = makeStore<Theme>(null);

export function showTheme(wanted: Theme): void {
  theme.set(wanted);
  if (wanted) document.documentElement.dataset["theme"] = wanted;
  else delete document.documentElement.dataset["theme"];
  try {
    if (wanted) localStorage.setItem(KEPT_AS, wanted);
    else localStorage.removeItem(KEPT_AS);
  } catch {
    // A browser that keeps nothing shows what the account says.
  }
}

export function themeOfBrowser(): Theme {
  try {
    const kept = localStorage.getItem(KEPT_AS);
    return kept === "light" || kept === "dark" ? kept : null;
  } catch {
    return null;
  }
}
