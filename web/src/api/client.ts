import { isReachable } from "../state/reachable";
import { parseJson, writeJson } from "./json";
import { Problem, problemOf, Unreachable } from "./problem";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

type Method = "get" | "post" | "put" | "patch" | "delete";
type Json<R> = R extends { content: { "application/json": infer A } } ? A : never;
/** The answer of a successful call. */
type Answer<O> = O extends { responses: infer R } ? Json<R[keyof R & (200 | 201 | 202)]> : never;
type Body<O> = O extends { requestBody: { content: { "application/json": infer B } } } ? B : undefined;
type Query<O> = O extends { parameters: { query?: infer Q } } ? Q : undefined;
type PathValues<O> = O extends { parameters: { path: infer V } } ? V : undefined;

export interface More {
  headers?: Record<string, string>;
  signal?: AbortSignal;
}
type Options<O> = More & {
  body?: Body<O>;
  query?: Query<O>;
  path?: PathValues<O>;
};

/** Answers with values of models, whose whole numbers may be larger than those of JavaScript. */
const HAS_VALUES = /^\/(predictions|models)\b/;

/** Proves that a request comes from this page. The browser sends our cookie with requests of other pages, too. */
let csrfToken = "";
let whenSessionIsOver: () => void = () => undefined;
let renewToken: () => Promise<boolean> = () => Promise.resolve(false);

export function takeCsrfToken(token: string): void {
  csrfToken = token;
}

/** `renew` fetches the token of the current session; false when there is none. */
export function onTokenRefused(renew: () => Promise<boolean>): void {
  renewToken = renew;
}

/** `tell` is called when the session has ended. */
export function onSessionOver(tell: () => void): void {
  whenSessionIsOver = tell;
}

/** Calls an operation of our OpenAPI document. Throws `Problem` and `Unreachable`. */
export function call<M extends Method, P extends keyof paths>(
  method: M,
  path: P,
  options: Options<paths[P][M & keyof paths[P]]> = {},
): Promise<Answer<paths[P][M & keyof paths[P]]>> {
  const values = (options.path ?? {}) as Record<string, string>;
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(values[name] ?? ""));
  return ask(method, filled + queryOf(options.query as Record<string, unknown> | undefined), options.body, options);
}

/** `?a=1&b=2` from the given values, without undefined ones. */
export function queryOf(query: Readonly<Record<string, unknown>> = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text && `?${text}`;
}

/** Calls any path of the API; the answer is assumed to be a `T`. Throws `Problem` and `Unreachable`. */
export async function ask<T>(method: Method, url: string, body?: unknown, more: More = {}): Promise<T> {
  try {
    return await askOnce<T>(method, url, body, more);
  } catch (error) {
    // Another tab has signed in again, so this tab's token belongs to an ended session.
    if (!(error instanceof Problem) || error.code !== "csrf" || !(await renewToken())) throw error;
    return askOnce<T>(method, url, body, more);
  }
}

/** Sends a file as the body. Throws the same as `ask`. */
export function upload<T>(url: string, file: Blob, type: string): Promise<T> {
  return askOnce<T>("post", url, file, { headers: { "Content-Type": type } });
}

/** Fetches a file. Throws the same as `ask`, also if the connection breaks before its end. */
export async function fetchFile(url: string): Promise<Blob> {
  const response = await answered(url, {});
  try {
    return await response.blob();
  } catch {
    isReachable.set(false);
    throw new Unreachable();
  }
}

async function askOnce<T>(method: Method, url: string, body: unknown, more: More): Promise<T> {
  const headers: Record<string, string> = { Accept: "application/json", ...more.headers };
  if (body !== undefined) headers["Content-Type"] ??= "application/json";
  if (method !== "get" && csrfToken) headers["X-CSRF-Token"] = csrfToken;
  const response = await answered(url, {
    method: method.toUpperCase(),
    headers,
    body: body === undefined || body instanceof Blob ? body : writeJson(body),
    signal: more.signal,
  });
  if (response.status === 204) return undefined as T;
  return (HAS_VALUES.test(url) ? parseJson(await response.text()) : await response.json()) as T;
}

/** The answer, if it is a success. */
async function answered(url: string, request: RequestInit): Promise<Response> {
  const response = await send(url, request);
  if (response.ok) {
    isReachable.set(true);
    return response;
  }
  const problem = await problemOf(response, request.method);
  isReachable.set(problem instanceof Problem);
  // A failed log-in does not mean that a session has ended.
  if (problem instanceof Problem && problem.status === 401 && problem.code !== "invalid_credentials")
    whenSessionIsOver();
  throw problem;
}

async function send(url: string, request: RequestInit): Promise<Response> {
  try {
    return await fetch(url, request);
  } catch (error) {
    if (request.signal?.aborted) throw error;
    isReachable.set(false);
    throw new Unreachable();
  }
}
