import { useState } from "preact/hooks";
import { call } from "../api/client";
import { hasLarge, writeJson } from "../api/json";
import { CopyButton } from "../parts/copy";
import { ActButton } from "../parts/states";
import { t } from "../words";

type Tool = "curl" | "python" | "javascript";
const TOOLS: readonly [Tool, string][] = [
  ["curl", "curl"],
  ["python", "Python"],
  ["javascript", "JavaScript"],
];

export interface Order {
  model: string;
  version?: string;
  input: unknown;
}

/** The current request as code for other programs; or why there is none. */
export function Snippets({ order, canMakeKey }: { order: Order | Error; canMakeKey: boolean }) {
  const [tool, setTool] = useState<Tool>("curl");
  const [key, setKey] = useState<string>();
  const text = order instanceof Error ? null : snippet(tool, order, key, location.origin);
  return (
    <section class="card stack" aria-labelledby="snippets">
      <div class="row apart">
        <h2 id="snippets">{t("asProgram")}</h2>
        <div class="tabs">
          {TOOLS.map(([each, name]) => (
            <button key={each} type="button" aria-pressed={each === tool} onClick={() => setTool(each)}>
              {name}
            </button>
          ))}
        </div>
      </div>
      {/* Focusable, so that the keyboard can scroll it. */}
      {text === null ? (
        <p class="muted">{order instanceof Error && order.message}</p>
      ) : (
        <pre tabIndex={0} aria-label={t("asProgram")}>
          {text}
        </pre>
      )}
      <div class="row">
        {text !== null && <CopyButton text={text} />}
        {canMakeKey && !key && (
          <ActButton
            kind="little"
            act={async () => {
              const made = await call("post", "/api-keys", { body: { name: t("keyFromPage") } });
              setKey(made.key);
            }}
          >
            {t("fillInKey")}
          </ActButton>
        )}
        {key && <span class="small muted">{t("keyIsIn")}</span>}
      </div>
    </section>
  );
}

export function snippet(tool: Tool, order: Order, key: string | undefined, origin: string): string {
  const secret = key ?? "ftl_…";
  const body = writeJson(order, 2);
  if (tool === "curl")
    return [
      `curl '${origin}/predictions/predict' \\`,
      `  -H 'X-API-Key: ${secret}' \\`,
      "  -H 'Content-Type: application/json' \\",
      "  -H 'Prefer: wait=10' \\",
      `  -d '${body.replaceAll("'", "'\\''")}'`,
    ].join("\n");
  if (tool === "python")
    return [
      "import json",
      "import urllib.request",
      "",
      "request = urllib.request.Request(",
      `    ${pythonText(`${origin}/predictions/predict`)},`,
      `    data=json.dumps(${indent(pythonValue(order, 0), 4)}).encode(),`,
      "    headers={",
      `        "X-API-Key": ${pythonText(secret)},`,
      '        "Content-Type": "application/json",',
      '        "Prefer": "wait=10",',
      "    },",
      ")",
      "print(json.load(urllib.request.urlopen(request)))",
    ].join("\n");
  // JavaScript would take large whole numbers for others, so they are sent and shown as text.
  const large = hasLarge(order);
  return [
    `const answer = await fetch("${origin}/predictions/predict", {`,
    '  method: "POST",',
    "  headers: {",
    `    "X-API-Key": "${secret}",`,
    '    "Content-Type": "application/json",',
    '    Prefer: "wait=10",',
    "  },",
    large ? `  body: ${JSON.stringify(writeJson(order))},` : `  body: JSON.stringify(${indent(body, 2)}),`,
    "});",
    `console.log(await answer.${large ? "text" : "json"}());`,
  ].join("\n");
}

function indent(text: string, by: number): string {
  return text.replaceAll("\n", `\n${" ".repeat(by)}`);
}

function pythonText(text: string): string {
  return JSON.stringify(text);
}

/** A JSON value as a Python literal. */
export function pythonValue(value: unknown, depth: number): string {
  const pad = "    ".repeat(depth + 1);
  const end = "    ".repeat(depth);
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) {
    if (value.length === 0) return "[]";
    return `[\n${value.map((each) => `${pad}${pythonValue(each, depth + 1)},\n`).join("")}${end}]`;
  }
  if (typeof value === "object") {
    const entries = Object.entries(value);
    if (entries.length === 0) return "{}";
    return `{\n${entries.map(([name, each]) => `${pad}${pythonText(name)}: ${pythonValue(each, depth + 1)},\n`).join("")}${end}}`;
  }
  return writeJson(value);
}
