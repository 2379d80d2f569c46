import { ask, call, onSessionOver, onTokenRefused, takeCsrfToken, type Schemas } from "../api/client";
import { Problem } from "../api/problem";
import { go, here } from "../router";
import { isLanguage, speak, type Language } from "../words";
import { comebacks } from "./reachable";
import { makeStore } from "./store";
import { showTheme, type Theme } from "./theme";

export type User = Schemas["User"];
export interface SessionAnswer {
  user: User;
  csrf_token: string;
}

/** Who is signed in. `asking`: not known yet; `out`: nobody; `over`: the user's session has ended. */
export type Session = { state: "asking" | "out" } | { state: "in" | "over"; user: User };

export const session = makeStore<Session>({ state: "asking" });
export const balance = makeStore<Schemas["Balance"] | null>(null);
/** Whether there are fewer credits than the threshold of the account; null: not known. */
export function isLow(now: Schemas["Balance"] | null): boolean | null {
  return now && now.threshold != null ? now.available + now.held < now.threshold : now && false;
}

/** Counts the users of this tab. A change renders the page anew, so that nothing of the earlier user remains. */
export const people = makeStore(0);

/** Tells the other tabs of a sign-in or sign-out, because all tabs share the cookie. */
const tabs = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("foretell-session");

onSessionOver(() => {
  const now = session.get();
  if (now.state === "in") session.set({ state: "over", user: now.user });
});

onTokenRefused(async () => {
  await askWho();
  return session.get().state === "in";
});

tabs?.addEventListener("message", (event: MessageEvent<string>) => {
  if (event.data === "out") signedOut();
  else void askWho();
});

function enter(answer: SessionAnswer): void {
  takeCsrfToken(answer.csrf_token);
  const wasOver = session.get().state === "over";
  const before = personBefore();
  // The page stays unchanged if the same user signs in again after the end of a session.
  if (before !== null && before !== answer.user.id) forgetPerson("/models");
  rememberPerson(answer.user.id);
  if (isLanguage(answer.user.language)) speak(answer.user.language).catch(() => undefined);
  if (answer.user.theme) showTheme(answer.user.theme);
  session.set({ state: "in", user: answer.user });
  void askBalance();
  // What could not be read without a session is read now.
  if (wasOver) comebacks.set(comebacks.get() + 1);
}

function leave(): void {
  takeCsrfToken("");
  balance.set(null);
  session.set({ state: "out" });
}

/** The user has signed out, in this tab or another: removes their data. */
function signedOut(): void {
  if (personBefore() !== null) forgetPerson("/sign-in");
  rememberPerson(null);
  leave();
}

/** Drops the input, data and address of the earlier user. `home` replaces pages that need a sign-in. */
function forgetPerson(home: string): void {
  const { path } = here();
  const open = path === "/" || /^\/(models|sign-in|sign-up)(\/|$)/.test(path);
  go(open ? path : home, { replace: true });
  balance.set(null);
  people.set(people.get() + 1);
}

const PERSON = "foretell-person";
let person: string | null = null;

/** The id of the last user of this tab, also before a reload; null after a sign-out. */
function personBefore(): string | null {
  try {
    return sessionStorage.getItem(PERSON) ?? person;
  } catch {
    return person;
  }
}

function rememberPerson(id: string | null): void {
  person = id;
  try {
    if (id === null) sessionStorage.removeItem(PERSON);
    else sessionStorage.setItem(PERSON, id);
  } catch {
    // Without storage, the id is known until the next reload.
  }
}

/** Asks the API who is signed in; the first call of a new page. Throws other errors than "not signed in". */
export async function askWho(): Promise<void> {
  try {
    enter(await ask<SessionAnswer>("get", "/session"));
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) throw error;
    if (session.get().state !== "over") leave();
  }
}

export async function signIn(username: string, password: string): Promise<void> {
  enter(await ask<SessionAnswer>("post", "/session", { username, password }));
  tabs?.postMessage("in");
}

export async function signUp(username: string, password: string): Promise<void> {
  await call("post", "/users", { body: { username, password } });
  await signIn(username, password);
}

export async function signOut(): Promise<void> {
  await ask("delete", "/session");
  signedOut();
  tabs?.postMessage("out");
}

/** Signs out locally, after a call that has ended all sessions. */
export function forgetSession(): void {
  signedOut();
  tabs?.postMessage("out");
}

export async function askBalance(): Promise<void> {
  const whose = people.get();
  try {
    const answer = await call("get", "/balance");
    if (people.get() === whose && session.get().state !== "out") balance.set(answer);
  } catch {
    // Keep the number in the header; the balance page shows the error.
  }
}

/** Stores a setting in the account, so that it applies on other devices, too. */
export async function keepWish(wish: { language?: Language | null; theme?: Theme }): Promise<void> {
  const now = session.get();
  if (now.state !== "in") return;
  session.set({ state: "in", user: { ...now.user, ...wish } });
  await ask("patch", "/users/me", wish);
}
