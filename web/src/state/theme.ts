import { makeStore } from "./store";

export type Theme = "light" | "dark" | null;
const KEPT_AS = "foretell-theme";

/** Light, dark, or null for the system's setting. */
export const theme = makeStore<Theme>(null);

export function showTheme(wanted: Theme): void {
  theme.set(wanted);
  if (wanted) document.documentElement.dataset["theme"] = wanted;
  else delete document.documentElement.dataset["theme"];
  try {
    if (wanted) localStorage.setItem(KEPT_AS, wanted);
    else localStorage.removeItem(KEPT_AS);
  } catch {
    // Without storage, the account's setting is used.
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
