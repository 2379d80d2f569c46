import type { components } from "./schema";

export type FieldProblem = components["schemas"]["FieldProblem"];

/** An error response of the API (RFC 9457). */
export class Problem extends Error {
  readonly status: number;
  /** Stable, for programs. */
  readonly code: string;
  readonly errors: readonly Partial<FieldProblem>[];
  /** With a status of 5xx: whether the request may have taken effect. */
  readonly outcome: string | undefined;
  readonly retryAfterS: number | undefined;
  readonly body: Readonly<Record<string, unknown>>;

  constructor(status: number, body: Readonly<Record<string, unknown>>, retryAfterS?: number) {
    super(typeof body["detail"] === "string" ? body["detail"] : `HTTP ${status}`);
    this.name = "Problem";
    this.status = status;
    this.body = body;
    this.code = typeof body["code"] === "string" ? body["code"] : "";
    this.errors = Array.isArray(body["errors"]) ? (body["errors"] as Partial<FieldProblem>[]) : [];
    this.outcome = typeof body["outcome"] === "string" ? body["outcome"] : undefined;
    this.retryAfterS = retryAfterS;
  }
}

/** No answer: no network, or the app is down. */
export class Unreachable extends Error {
  constructor() {
    super("unreachable");
    this.name = "Unreachable";
  }
}

/** The error of a response. `method` is that of the request: reading has no outcome. */
export async function problemOf(response: Response, method = "GET"): Promise<Problem | Unreachable> {
  const retryAfter = Number(response.headers.get("Retry-After"));
  const body: unknown = await response.json().catch(() => null);
  if (body === null || typeof body !== "object") {
    // From a proxy, not from the app: 502 to 504 mean that the app is down.
    if (response.status >= 502 && response.status <= 504) return new Unreachable();
    return new Problem(response.status, {});
  }
  const { outcome, ...rest } = body as Record<string, unknown>;
  const said = method === "GET" ? rest : { ...rest, outcome };
  return new Problem(response.status, said, retryAfter > 0 ? retryAfter : undefined);
}

/** The steps of a JSON Pointer in the API's form, a URI fragment: `#/input/carrier`. */
export function stepsOf(pointer: string): string[] {
  const [, ...steps] = pointer.replace(/^#/, "").split("/");
  return steps.map((step) => decodeStep(step).replaceAll("~1", "/").replaceAll("~0", "~"));
}

function decodeStep(step: string): string {
  try {
    return decodeURIComponent(step);
  } catch {
    return step;
  }
}
