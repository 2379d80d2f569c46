import type { RefObject } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

/**
 * For elements that are scrolled sideways (class `sideways`): marks on which side there is more content, and scrolls
 * the current item into view.
 */
export function useSideways<T extends HTMLElement>(): RefObject<T | null> {
  const place = useRef<T | null>(null);
  useLayoutEffect(() => {
    const element = place.current;
    if (!element) return undefined;
    const mark = (): void => {
      const left = element.scrollLeft;
      // Ignore fractions of a pixel.
      element.toggleAttribute("data-more-left", left > 1);
      element.toggleAttribute("data-more-right", left + element.clientWidth < element.scrollWidth - 1);
    };
    element.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
    const watch = new ResizeObserver(mark);
    for (const each of [element, ...element.children]) watch.observe(each);
    element.addEventListener("scroll", mark, { passive: true });
    return () => {
      element.removeEventListener("scroll", mark);
      watch.disconnect();
    };
  }, []);
  return place;
}
