import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Pick } from "./parts/pick";
import { usePlace } from "./router";
import { isReachable } from "./state/reachable";
import { balance, keepWish, session, signOut } from "./state/session";
import { useStore } from "./state/store";
import { showTheme, theme, type Theme } from "./state/theme";
import { isLanguage, speak, t, useLanguage, type Language } from "./words";
import { say } from "./parts/messages";
import { explain } from "./parts/states";

/** The frame of every page: header, navigation and banner. */
export function Frame({ children }: { children: ComponentChildren }) {
  const now = useStore(session);
  const reachable = useStore(isReachable);
  const { path } = usePlace();
  const [open, setOpen] = useState(false);
  useEffect(() => setOpen(false), [path]);
  const signedIn = now.state === "in" || now.state === "over";
  return (
    <>
      <a class="skip" href="#content">
        {t("skipToContent")}
      </a>
      <header class="head">
        <div class="head-inner">
          <a class="brand" href="/ui/">
            <Mark />
            <span>Foretell</span>
          </a>
          <nav class={`nav${open ? " open" : ""}`} aria-label={t("navigation")} id="navigation">
            <Links signedIn={signedIn} operator={signedIn && now.user.role === "operator"} path={path} />
            {signedIn && <SignOut kind="quiet only-narrow" />}
          </nav>
          <span class="head-end">
            {signedIn && <CreditsInHead />}
            {signedIn ? (
              <SignOut kind="little hide-narrow" />
            ) : (
              now.state === "out" && (
                <a class="button little" href="/ui/sign-in">
                  {t("signIn")}
                </a>
              )
            )}
            <button
              class="button little menu-button"
              type="button"
              aria-expanded={open}
              aria-controls="navigation"
              onClick={() => setOpen(!open)}
            >
              {t("menu")}
            </button>
          </span>
        </div>
        {/* Inside of the head, which stays in sight: whoever has scrolled down sees it, too. */}
        <div role="status" aria-live="polite">
          {!reachable && <p class="banner">{t("isAway")}</p>}
        </div>
      </header>
      <main class="main" id="content" tabIndex={-1}>
        {children}
      </main>
      <Foot signedIn={signedIn} />
    </>
  );
}

function Links({ signedIn, operator, path }: { signedIn: boolean; operator: boolean; path: string }) {
  const links: [string, string][] = [["/models", t("models")]];
  if (signedIn)
    links.push(
      ["/history", t("history")],
      ["/balance", t("balance")],
      ["/keys", t("keys")],
      ["/webhooks", t("webhooks")],
      ["/telegram", "Telegram"],
      ["/account", t("account")],
    );
  if (operator) links.push(["/operator", t("operator")]);
  const current = path === "/" ? "/models" : path;
  return (
    <>
      {links.map(([to, name]) => (
        <a
          key={to}
          href={`/ui${to}`}
          aria-current={current === to || current.startsWith(`${to}/`) ? "page" : undefined}
        >
          {name}
        </a>
      ))}
    </>
  );
}

function SignOut({ kind }: { kind: string }) {
  return (
    <button
      class={`button ${kind}`}
      type="button"
      onClick={() => void signOut().catch((error: unknown) => say(explain(error), "bad"))}
    >
      {t("signOut")}
    </button>
  );
}

function CreditsInHead() {
  const now = useStore(balance);
  return (
    <a
      class="chip accent"
      href="/ui/balance"
      aria-label={now ? t("creditsAvailable", { n: now.available }) : t("balance")}
    >
      {now ? t("credits", { n: now.available }) : "…"}
    </a>
  );
}

function Foot({ signedIn }: { signedIn: boolean }) {
  const language = useLanguage();
  const shown = useStore(theme);
  const keep = (wish: { language?: Language; theme?: Theme }): void => {
    if (signedIn) keepWish(wish).catch((error: unknown) => say(explain(error), "bad"));
  };
  return (
    <footer class="foot row apart">
      <a href="/docs">{t("apiDocs")}</a>
      <span class="row">
        <Pick
          label={t("language")}
          value={language}
          options={[
            ["en", "English"],
            ["ru", "Русский"],
          ]}
          pick={(value) => {
            if (!isLanguage(value)) return;
            speak(value).catch((error: unknown) => say(explain(error), "bad"));
            keep({ language: value });
          }}
        />
        <Pick
          label={t("theme")}
          value={shown ?? "system"}
          options={[
            ["system", t("themeSystem")],
            ["light", t("themeLight")],
            ["dark", t("themeDark")],
          ]}
          pick={(value) => {
            const wanted = value === "light" || value === "dark" ? value : null;
            showTheme(wanted);
            keep({ theme: wanted });
          }}
        />
      </span>
    </footer>
  );
}

function Mark() {
  return (
    <svg viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="7" fill="#0b63ce" />
      <path
        d="M7 22l6-8 5 4 7-9"
        fill="none"
        stroke="#fff"
        stroke-width="3"
        stroke-linecap="round"
        stroke-linejoin="round"
      />
      <circle cx="25" cy="9" r="2.6" fill="#fff" />
    </svg>
  );
}
