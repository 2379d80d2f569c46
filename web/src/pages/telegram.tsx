import { useEffect, useState } from "preact/hooks";
import { ask, call, type Schemas } from "../api/client";
import { CopyButton } from "../parts/copy";
import { Confirm } from "../parts/dialog";
import { QrCode } from "../parts/qr";
import { ActButton, Empty, Show, Waiting } from "../parts/states";
import { Moment } from "../parts/status";
import { Title } from "../parts/title";
import "../styles/result.css";
import { useLoad } from "../state/load";
import { formatMoment, t } from "../words";

const LOOK_EVERY_MS = 2000;

export function TelegramPage() {
  const chats = useLoad("chats", (signal) => call("get", "/telegram/link", { signal }));
  const [link, setLink] = useState<Schemas["TelegramLink"] | null>(null);
  const [ending, setEnding] = useState<Schemas["TelegramChat"] | null>(null);
  const count = chats.data?.items.length ?? 0;
  const [before, setBefore] = useState(0);
  // Poll until the chat is linked.
  const linked = link !== null && count > before;
  useEffect(() => {
    if (!link || linked) return undefined;
    const timer = setInterval(chats.reload, LOOK_EVERY_MS);
    return () => clearInterval(timer);
    // eslint-disable-next-line react-hooks/exhaustive-deps -- `reload` does the same at every drawing
  }, [link, linked]);
  return (
    <>
      <Title text="Telegram" />
      <div class="stack">
        <p class="muted">{t("telegramSays")}</p>
        <section class="card stack" aria-busy={chats.data === undefined}>
          {chats.data === undefined && chats.error === undefined && <Waiting rows={1} />}
          {chats.data && chats.data.bot === null && <p class="notice warn">{t("noBot")}</p>}
          {chats.data?.bot !== null && (
            <div>
              <ActButton
                kind="main-action"
                act={async () => {
                  setBefore(count);
                  setLink(await call("post", "/telegram/link"));
                }}
              >
                {t("linkChat")}
              </ActButton>
            </div>
          )}
          {link && !linked && <LinkShown link={link} />}
          {linked && (
            <p class="notice good" role="status">
              {t("isLinked")}
            </p>
          )}
        </section>
        <h2>{t("linkedChats")}</h2>
        <Show loaded={chats} rows={2}>
          {({ items }) =>
            items.length === 0 ? (
              <Empty>{t("noChats")}</Empty>
            ) : (
              <ul class="stack">
                {items.map((chat) => (
                  <li key={chat.chat_id} class="card row apart">
                    <span class="grow">
                      <strong>{chat.name ?? chat.chat_id}</strong>
                      <p class="small muted">
                        {t("linkedAt")} <Moment at={chat.linked_at} />
                      </p>
                    </span>
                    <button class="button danger little" type="button" onClick={() => setEnding(chat)}>
                      {t("unlink")}
                    </button>
                  </li>
                ))}
              </ul>
            )
          }
        </Show>
      </div>
      {ending && (
        <Confirm
          title={t("unlinkChat", { name: ending.name ?? String(ending.chat_id) })}
          action={t("unlink")}
          act={async () => {
            await ask("delete", `/telegram/link?chat_id=${ending.chat_id}`);
            chats.reload();
          }}
          close={() => setEnding(null)}
        >
          <p>{t("unlinkSays")}</p>
        </Confirm>
      )}
    </>
  );
}

function LinkShown({ link }: { link: Schemas["TelegramLink"] }) {
  return (
    <div class="row">
      {link.url && <QrCode text={link.url} label={t("qrSays")} />}
      <div class="stack tight beside-qr">
        {link.url && (
          <div>
            <a class="button" href={link.url} target="_blank" rel="noreferrer">
              {t("openTelegram")}
            </a>
          </div>
        )}
        <p>{t("orSend")}</p>
        <span class="row">
          <code>/start {link.code}</code>
          <CopyButton text={`/start ${link.code}`} />
        </span>
        <p class="small muted">{t("goodUntil", { time: formatMoment(link.expires_at, true) })}</p>
      </div>
    </div>
  );
}
