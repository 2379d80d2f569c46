import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";

/** The heading of a page, and the title of its tab. */
export function Title({ text, children }: { text: string; children?: ComponentChildren }) {
  useEffect(() => {
    document.title = `${text} · Foretell`;
  }, [text]);
  return (
    <div class="page-title">
      <h1>{text}</h1>
      {children}
    </div>
  );
}
