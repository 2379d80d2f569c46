import { useEffect, useState } from "preact/hooks";
import type { PageProps } from "../app";
import { Dialog } from "../parts/dialog";
import { Field, useSending, wrongOf } from "../parts/form";
import { Title } from "../parts/title";
import { go, usePlace } from "../router";
import { forgetSession, session, signIn, signUp } from "../state/session";
import { useStore } from "../state/store";
import { t } from "../words";

/** Accepts only addresses of this page, so that a link can't redirect a user to another site after the sign-in. */
function nextOf(query: URLSearchParams): string {
  const next = query.get("next") ?? "/";
  return /^\/(?![/\\])/.test(next) && !/^\/sign-/.test(next) ? next : "/";
}

export function SignInPage({ params }: { params: PageProps }) {
  const { query } = usePlace();
  const now = useStore(session);
  const isNew = params["which"] === "sign-up";
  const next = nextOf(query);
  useEffect(() => {
    if (now.state === "in") go(next, { replace: true });
  }, [now.state, next]);
  const other = `/ui/${isNew ? "sign-in" : "sign-up"}${query.has("next") ? `?next=${encodeURIComponent(next)}` : ""}`;
  return (
    <div class="narrow-form stack">
      <Title text={isNew ? t("signUpTitle") : t("signInTitle")} />
      <div class="card">
        <Credentials key={String(isNew)} isNew={isNew} />
      </div>
      <p>
        {isNew ? t("haveAccount") : t("noAccount")} <a href={other}>{isNew ? t("signIn") : t("signUp")}</a>
      </p>
    </div>
  );
}

function Credentials({ isNew, fixedName }: { isNew: boolean; fixedName?: string }) {
  const [username, setUsername] = useState(fixedName ?? "");
  const [password, setPassword] = useState("");
  const [shown, setShown] = useState(false);
  const { busy, error, submit } = useSending(() => (isNew ? signUp : signIn)(username, password));
  const wrong = wrongOf(error, ["username", "password"], {
    invalid_username: "username",
    username_taken: "username",
    invalid_password: "password",
  });
  return (
    <form class="stack" onSubmit={submit}>
      <Field label={t("username")} wrong={wrong["username"]} hint={isNew ? t("usernameHint") : undefined}>
        {(control) => (
          <input
            {...control}
            type="text"
            name="username"
            autoComplete="username"
            autoCapitalize="none"
            spellcheck={false}
            required
            readOnly={fixedName !== undefined}
            value={username}
            onInput={(event) => setUsername(event.currentTarget.value)}
          />
        )}
      </Field>
      <Field label={t("password")} wrong={wrong["password"]} hint={isNew ? t("passwordHint") : undefined}>
        {(control) => (
          <input
            {...control}
            {...({ type: shown ? "text" : "password" } as { type: "password" })}
            name="password"
            autoComplete={isNew ? "new-password" : "current-password"}
            autoFocus={fixedName !== undefined}
            required
            minLength={isNew ? 8 : undefined}
            value={password}
            onInput={(event) => setPassword(event.currentTarget.value)}
          />
        )}
      </Field>
      <label class="check small">
        <input type="checkbox" checked={shown} onChange={(event) => setShown(event.currentTarget.checked)} />
        {t("showPassword")}
      </label>
      {wrong[""] && (
        <p class="wrong" role="alert">
          {wrong[""]}
        </p>
      )}
      <button class="button main-action" type="submit" aria-busy={busy}>
        {isNew ? t("signUp") : t("signIn")}
      </button>
    </form>
  );
}

/** A dialog over the page, so that the page's contents are not lost. */
export function SignInAgain({ username }: { username: string }) {
  return (
    <Dialog title={t("sessionOver")}>
      <p>{t("sessionOverWhy")}</p>
      <Credentials isNew={false} fixedName={username} />
      <button class="button quiet" type="button" onClick={forgetSession}>
        {t("asSomebodyElse")}
      </button>
    </Dialog>
  );
}
