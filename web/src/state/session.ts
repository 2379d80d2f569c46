import { ask, call, onSessionOver, onTokenRefused, takeCsrfToken, type Schemas } from "../api/client";
import { Problem } from "../api/problem";
import { go, here } from "../router";
import { isLanguage, speak, type Language } from "../words";
import { makeStore } from "./store";
import { showTheme, type Theme } from "./theme";

export type User = Schemas["User"];
export interface SessionAnswer {
  user: User;
  csrf_token: string;
}

/** Who is signed in. `asking`: we do not know yet; `out`: nobody; `over`: somebody was, and the API forgot them. */
export type Session = { state: "asking" | "out" } | { state: "in" | "over"; user: User };

export const session = makeStore<Session>({ state: "asking" });
export const balance = makeStore<Schemas["Balance"] | null>(null);
/** Counts the people at this tab: when it changes, nothing of the one before may stay. The page is drawn anew then. */
export const people = makeStore(0);

/** Tabs of one browser share the cookie: what one does with it, the others hear. */
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
  const before = personBefore();
  // The same person after a session that ran out finds everything as it was.
  if (before !== null && before !== answer.user.id) forgetPerson("/models");
  rememberPerson(answer.user.id);
  if (isLanguage(answer.user.language)) void speak(answer.user.language);
  if (answer.user.theme) showTheme(answer.user.theme);
  session.set({ state: "in", user: answer.user });
  void askBalance();
}

function leave(): void {
  takeCsrfToken("");
  balance.set(null);
  session.set({ state: "out" });
}

/** Somebody wanted to leave, in this tab or another: what was theirs goes with them. */
function signedOut(): void {
  if (personBefore() !== null) forgetPerson("/sign-in");
  rememberPerson(null);
  leave();
}

/** Drops what the person before typed, got and had in the address. `home`: where to go from pages of their own. */
function forgetPerson(home: string): void {
  const { path } = here();
  const open = path === "/" || /^\/(models|sign-in|sign-up)(\/|$)/.test(path);
  go(open ? path : home, { replace: true });
  balance.set(null);
  people.set(people.get() + 1);
}

const PERSON = "foretell-person";
let person: string | null = null;

/** Who was signed in last in this tab, also before a reload; null after they signed out. */
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
    // A browser that keeps nothing knows it until the next reload.
  }
}

/** Ask the API who we are; the first thing a new page does. Throws what is no answer to that. */
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

/** After something that ended every session, ours among them. */
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
    // The page of the balance says what is wrong; the number in the head just stays.
  }
}

/** Keep a wish with the account, so that it holds on other devices, too. */
export async function keepWish(wish: { language?: Language | null; theme?: Theme }): Promise<void> {
  const now = session.get();
  if (now.state !== "in") return;
  session.set({ state: "in", user: { ...now.user, ...wish } });
  await ask("patch", "/users/me", wish);
}
