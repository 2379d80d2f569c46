import { useState } from "preact/hooks";
import { ask } from "../api/client";
import { Dialog } from "../parts/dialog";
import { Download } from "../parts/download";
import { Field, useSending, wrongOf } from "../parts/form";
import { say } from "../parts/messages";
import { ActButton, Show } from "../parts/states";
import { Moment } from "../parts/status";
import { Title } from "../parts/title";
import { forgetSession, session } from "../state/session";
import { useLoad } from "../state/load";
import { useStore } from "../state/store";
import { t } from "../words";

export interface SessionRow {
  id: string;
  created_at: string;
  last_used_at: string;
  user_agent: string | null;
  address: string | null;
  current: boolean;
}

export function AccountPage() {
  const now = useStore(session);
  const [closing, setClosing] = useState(false);
  if (now.state !== "in" && now.state !== "over") return null;
  const { user } = now;
  return (
    <>
      <Title text={t("account")} />
      <div class="stack">
        <section class="card">
          <dl class="facts">
            <dt>{t("username")}</dt>
            <dd>
              <strong>{user.username}</strong>
            </dd>
            <dt>{t("role")}</dt>
            <dd>{user.role === "operator" ? t("operator") : t("customer")}</dd>
            <dt>{t("memberSince")}</dt>
            <dd>
              <Moment at={user.created_at} />
            </dd>
          </dl>
        </section>
        <div class="two">
          <NewPassword />
          <Sessions />
        </div>
        <section class="card stack tight" aria-labelledby="data">
          <h2 id="data">{t("yourData")}</h2>
          <p class="muted">{t("exportSays")}</p>
          <div class="row">
            <Download url="/users/me/export" name="foretell-account.jsonl">
              {t("export")}
            </Download>
            <button class="button danger" type="button" onClick={() => setClosing(true)}>
              {t("closeAccount")}
            </button>
          </div>
        </section>
      </div>
      {closing && <CloseAccount close={() => setClosing(false)} />}
    </>
  );
}

function NewPassword() {
  const [old, setOld] = useState("");
  const [fresh, setFresh] = useState("");
  const { busy, error, submit } = useSending(async () => {
    await ask("post", "/users/me/password", { old, new: fresh });
    setOld("");
    setFresh("");
    say(t("passwordChanged"));
  });
  const wrong = wrongOf(error, ["old", "new"], { wrong_password: "old", invalid_password: "new" });
  return (
    <form class="card stack" onSubmit={submit}>
      <h2>{t("changePassword")}</h2>
      <Field label={t("oldPassword")} wrong={wrong["old"]}>
        {(control) => (
          <input
            {...control}
            type="password"
            autoComplete="current-password"
            required
            value={old}
            onInput={(event) => setOld(event.currentTarget.value)}
          />
        )}
      </Field>
      <Field label={t("newPassword")} hint={t("passwordHint")} wrong={wrong["new"]}>
        {(control) => (
          <input
            {...control}
            type="password"
            autoComplete="new-password"
            required
            minLength={8}
            value={fresh}
            onInput={(event) => setFresh(event.currentTarget.value)}
          />
        )}
      </Field>
      {wrong[""] && (
        <p class="wrong" role="alert">
          {wrong[""]}
        </p>
      )}
      <p class="small muted">{t("passwordEndsOthers")}</p>
      <div>
        <button class="button main-action" type="submit" aria-busy={busy}>
          {t("changePassword")}
        </button>
      </div>
    </form>
  );
}

function Sessions() {
  const sessions = useLoad("sessions", (signal) =>
    ask<{ items: SessionRow[] }>("get", "/sessions", undefined, { signal }),
  );
  return (
    <section class="card stack" aria-labelledby="sessions">
      <h2 id="sessions">{t("sessions")}</h2>
      <Show loaded={sessions} rows={3}>
        {({ items }) => (
          <ul class="stack tight">
            {items.map((item) => (
              <li key={item.id} class="row apart session">
                <span class="grow">
                  <strong>{browserOf(item.user_agent)}</strong>{" "}
                  {item.current && <span class="chip good">{t("thisOne")}</span>}
                  <p class="small muted">
                    {item.address} · {t("lastUse")} <Moment at={item.last_used_at} ago />
                  </p>
                </span>
                {!item.current && (
                  <ActButton
                    kind="little"
                    act={async () => {
                      await ask("delete", `/sessions/${item.id}`);
                      sessions.reload();
                    }}
                  >
                    {t("end")}
                  </ActButton>
                )}
              </li>
            ))}
          </ul>
        )}
      </Show>
      <div>
        <ActButton
          kind="danger"
          act={async () => {
            await ask("delete", "/sessions");
            forgetSession();
          }}
        >
          {t("signOutEverywhere")}
        </ActButton>
      </div>
    </section>
  );
}

/** A short name of a browser from its User-Agent. */
export function browserOf(agent: string | null): string {
  const text = agent ?? "";
  const browser = /(Firefox|Edg|OPR|Chrome|Safari|curl|python)/i.exec(text)?.[1] ?? text.slice(0, 30);
  const names: Record<string, string> = { Edg: "Edge", OPR: "Opera" };
  const system = /(Windows|Android|iPhone|iPad|Mac OS X|Linux)/.exec(text)?.[1];
  return [names[browser] ?? browser, system].filter(Boolean).join(", ") || "?";
}

function CloseAccount({ close }: { close: () => void }) {
  const [password, setPassword] = useState("");
  const { busy, error, submit } = useSending(async () => {
    await ask("delete", "/users/me", { password });
    forgetSession();
  });
  const wrong = wrongOf(error, ["password"], { wrong_password: "password" });
  return (
    <Dialog title={t("closeAccount")} close={close}>
      <p>{t("closeSays")}</p>
      <form class="stack" onSubmit={submit}>
        <Field label={t("password")} wrong={wrong["password"] ?? wrong[""]}>
          {(control) => (
            <input
              {...control}
              type="password"
              autoComplete="current-password"
              required
              value={password}
              onInput={(event) => setPassword(event.currentTarget.value)}
            />
          )}
        </Field>
        <div class="row end">
          <button class="button" type="button" onClick={close}>
            {t("cancel")}
          </button>
          <button class="button danger" type="submit" aria-busy={busy}>
            {t("closeAccount")}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
