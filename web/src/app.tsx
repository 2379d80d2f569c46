import type { ComponentType } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { openEvents, closeEvents, onEvent } from "./api/events";
import { Unreachable } from "./api/problem";
import { Frame } from "./frame";
import { forgetMessages, Messages, say } from "./parts/messages";
import { Failure, Waiting } from "./parts/states";
import { ModelsPage } from "./pages/models";
import { NotFoundPage } from "./pages/not_found";
import { SignInPage, SignInAgain } from "./pages/sign_in";
import { followLinks, go, pressOnce, usePlace } from "./router";
import { loadCode } from "./state/code";
import { comebacks } from "./state/reachable";
import { useLoad } from "./state/load";
import { askWho, balance, isLow, people, session } from "./state/session";
import { useStore } from "./state/store";
import { t, useLanguage } from "./words";

/** Parameters of a path, by name: `{name}` of `/models/{name}`. */
export type PageProps = Readonly<Record<string, string>>;
type Page = ComponentType<{ params: PageProps }>;

interface Route {
  path: RegExp;
  /** Loads the page's code when it is first opened. */
  load: () => Promise<Page>;
  /** Whether the page needs no sign-in. */
  open?: boolean;
}

const ROUTES: readonly Route[] = [
  { path: /^\/$/, load: () => Promise.resolve(ModelsPage), open: true },
  { path: /^\/models$/, load: () => Promise.resolve(ModelsPage), open: true },
  { path: /^\/models\/(?<name>[^/]+)$/, load: async () => (await import("./pages/model")).ModelPage, open: true },
  { path: /^\/predictions\/(?<id>[^/]+)$/, load: async () => (await import("./pages/prediction")).PredictionPage },
  { path: /^\/history$/, load: async () => (await import("./pages/history")).HistoryPage },
  { path: /^\/balance$/, load: async () => (await import("./pages/balance")).BalancePage },
  { path: /^\/keys$/, load: async () => (await import("./pages/keys")).KeysPage },
  { path: /^\/webhooks$/, load: async () => (await import("./pages/webhooks")).WebhooksPage },
  { path: /^\/webhooks\/(?<id>[^/]+)$/, load: async () => (await import("./pages/webhook")).WebhookPage },
  { path: /^\/telegram$/, load: async () => (await import("./pages/telegram")).TelegramPage },
  { path: /^\/account$/, load: async () => (await import("./pages/account")).AccountPage },
  { path: /^\/operator(?<rest>\/.*)?$/, load: async () => (await import("./operator")).OperatorPage },
  { path: /^\/(?<which>sign-in|sign-up)$/, load: () => Promise.resolve(SignInPage), open: true },
];

export function App({ who }: { who: Promise<void> }) {
  useLanguage();
  const now = useStore(session);
  const [trouble, setTrouble] = useState<unknown>();
  useEffect(() => void who.catch(setTrouble), [who]);
  useEffect(() => {
    document.addEventListener("click", followLinks);
    document.addEventListener("click", pressOnce, true);
    return () => {
      document.removeEventListener("click", followLinks);
      document.removeEventListener("click", pressOnce, true);
    };
  }, []);
  const whose = useStore(people);
  useEffect(forgetMessages, [whose]);
  // A stream belongs to one user; the next user opens another.
  const signedIn = now.state === "in" ? now.user.id : null;
  useEffect(() => {
    if (signedIn === null) return undefined;
    openEvents();
    const forget = onEvent((event) => {
      if (event.type === "changed") balance.set(event.balance);
      else say(t("webhookWasTurnedOff"), "warn");
    });
    let was = isLow(balance.get());
    const forgetBalance = balance.subscribe(() => {
      const low = isLow(balance.get());
      if (low && was === false) say(t("balanceIsLow"), "warn");
      was = low;
    });
    return () => {
      forget();
      forgetBalance();
      closeEvents();
    };
  }, [signedIn]);

  const retry = (): void => {
    setTrouble(undefined);
    askWho().catch(setTrouble);
  };
  const back = useStore(comebacks);
  useEffect(() => {
    if (trouble instanceof Unreachable) retry();
    // eslint-disable-next-line react-hooks/exhaustive-deps -- only when the app is back
  }, [back]);
  return (
    <Frame>
      {trouble ? <Failure error={trouble} retry={retry} /> : <Routes key={whose} />}
      {now.state === "over" && <SignInAgain username={now.user.username} />}
      <Messages />
    </Frame>
  );
}

function Routes() {
  const { path } = usePlace();
  const now = useStore(session);
  const found = ROUTES.map((route) => ({ route, match: route.path.exec(path) })).find(({ match }) => match);
  if (now.state === "asking" && !found?.route.open) return <Waiting rows={6} />;
  if (!found?.match) return <NotFoundPage />;
  if (now.state === "out" && !found.route.open) return <ToSignIn />;
  const params = Object.fromEntries(
    Object.entries(found.match.groups ?? {}).map(([name, value]) => [name, safeDecode(value as string | undefined)]),
  );
  return <Lazy key={found.route.path.source} route={found.route} params={params} />;
}

function ToSignIn() {
  const { path, query } = usePlace();
  useEffect(() => {
    const back = path + (query.size ? `?${query.toString()}` : "");
    go(`/sign-in?next=${encodeURIComponent(back)}`, { replace: true });
  }, [path, query]);
  return <Waiting rows={4} />;
}

/** A page whose code is loaded on demand. */
function Lazy({ route, params }: { route: Route; params: PageProps }) {
  const { data: Page, error, reload } = useLoad(route.path.source, () => loadCode(route.load));
  const heading = useRef(false);
  // After a link is followed, focus the content, so that screen readers read the new page (for the first one, they do).
  useEffect(() => {
    if (!Page || heading.current) return;
    heading.current = true;
    if (history.state !== null || performance.now() > 5000) document.getElementById("content")?.focus();
  }, [Page]);
  if (Page) return <Page params={params} />;
  return error === undefined || error instanceof Unreachable ? (
    <Waiting rows={6} />
  ) : (
    <Failure error={error} retry={reload} />
  );
}

function safeDecode(value: string | undefined): string {
  try {
    return decodeURIComponent(value ?? "");
  } catch {
    return value ?? "";
  }
}
