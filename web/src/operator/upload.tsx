import { useState } from "preact/hooks";
import { upload, type Schemas } from "../api/client";
import { Failure } from "../parts/states";
import { textOf } from "../words";
import { State } from "./state";

/** Uploads a package, which is checked, and installed if it is ready. */
export function Upload({ installed }: { installed: () => void }) {
  const [file, setFile] = useState<File | null>(null);
  const [busy, setBusy] = useState(false);
  const [checked, setChecked] = useState<Schemas["PackageChecked"] | null>(null);
  const [error, setError] = useState<unknown>();
  const send = async (install: boolean): Promise<void> => {
    if (!file || busy) return;
    setBusy(true);
    setError(undefined);
    setChecked(null);
    try {
      const answer = await upload<Schemas["PackageChecked"]>(
        `/admin/models?install=${String(install)}`,
        file,
        "application/zip",
      );
      setChecked(answer);
      if (answer.installed) installed();
    } catch (failed) {
      setError(failed);
    } finally {
      setBusy(false);
    }
  };
  return (
    <section class="card stack" aria-labelledby="upload">
      <h2 id="upload">{textOf("o_upload")}</h2>
      <div class="field">
        <label for="package">{textOf("o_uploadSays")}</label>
        <input
          id="package"
          type="file"
          accept=".zip,application/zip"
          onChange={(event) => setFile(event.currentTarget.files?.[0] ?? null)}
        />
      </div>
      <div class="row">
        <button class="button" type="button" disabled={!file} aria-busy={busy} onClick={() => void send(false)}>
          {textOf("o_checkOnly")}
        </button>
        <button
          class="button main-action"
          type="button"
          disabled={!file}
          aria-busy={busy}
          onClick={() => void send(true)}
        >
          {textOf("o_install")}
        </button>
      </div>
      {error !== undefined && <Failure error={error} />}
      {checked && (
        <div class={`notice ${checked.ready ? "good" : "bad"}`} role="status">
          <strong>{textOf(checked.installed ? "o_installed" : checked.ready ? "o_ready2" : "o_notReady")}</strong>
          {checked.reason && <p>{checked.reason}</p>}
          <ul>
            {checked.findings.map((finding) => (
              <li key={`${finding.step} ${finding.detail}`}>
                <State state={finding.outcome} /> <strong>{finding.step}</strong> {finding.detail}
              </li>
            ))}
          </ul>
        </div>
      )}
    </section>
  );
}
