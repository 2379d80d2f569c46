import { makeStore, useStore } from "./state/store";

/** The base path of all pages. */
const BASE = "/ui";

export interface Place {
  /** Without the base: `/models/sentiment`; `/` at the root. */
  path: string;
  query: URLSearchParams;
}

/** The current place. */
export function here(): Place {
  const path = location.pathname.startsWith(BASE) ? location.pathname.slice(BASE.length) : location.pathname;
  return { path: path.replace(/\/+$/, "") || "/", query: new URLSearchParams(location.search) };
}

const place = makeStore<Place>(here());

addEventListener("popstate", () => place.set(here()));

export function usePlace(): Place {
  return useStore(place);
}

/** Goes to an address of the page: `/history?status=failed`. `replace` adds no entry to the browser's history. */
export function go(address: string, { replace = false, keepScroll = false } = {}): void {
  const full = addressOf(address);
  if (full === location.pathname + location.search) return;
  if (replace) history.replaceState(null, "", full);
  else history.pushState(null, "", full);
  if (!keepScroll) scrollTo(0, 0);
  place.set(here());
}

export function addressOf(address: string): string {
  return address === "/" ? `${BASE}/` : BASE + address;
}

/** Handles ordinary clicks on links of the page without a reload; the browser handles all others. */
export function followLinks(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey)
    return;
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  // The browser also handles anchors on the current page.
  if (!link || link.hash || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
  if (link.pathname !== BASE && !link.pathname.startsWith(`${BASE}/`)) return;
  event.preventDefault();
  go(link.pathname.slice(BASE.length) + link.search || "/");
}

/**
 * Makes a double click on the button of a form one press: the answer to the first click may be there before the second.
 * The same for buttons with `data-once`, in whose place another one may be by then. Must hear clicks before the buttons do.
 */
export function pressOnce(event: MouseEvent): void {
  if (event.detail < 2 || !(event.target instanceof Element)) return;
  if (!event.target.closest("button[type=submit], button[data-once]")) return;
  event.preventDefault();
  event.stopPropagation();
}
