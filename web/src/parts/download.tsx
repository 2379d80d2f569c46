import type { ComponentChildren } from "preact";
import { fetchFile } from "../api/client";
import { ActButton } from "./states";

/** Long enough for the browser to begin to save the file. */
const KEPT_MS = 60_000;

/**
 * A button that saves a file of the API. It is not a link with `download`: the browser shows a refusal (session over, too
 * many downloads, no connection) only as a failed download, without the reason.
 */
export function Download({
  url,
  name,
  kind,
  children,
}: {
  url: string;
  /** The name of the saved file. */
  name: string;
  kind?: string;
  children: ComponentChildren;
}) {
  return (
    <ActButton kind={kind} act={async () => save(await fetchFile(url), name)}>
      {children}
    </ActButton>
  );
}

function save(file: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
}
