import { render } from "preact";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/form.css";
import { App } from "./app";
import { askWho } from "./state/session";
import { showTheme, themeOfBrowser } from "./state/theme";
import { languageOfBrowser, speak } from "./words";

// A tab that was open while a new release came asks for files that are gone: once, it gets the new page.
addEventListener("vite:preloadError", (event) => {
  const key = "foretell-reloaded-at";
  const before = Number(sessionStorage.getItem(key) ?? 0);
  if (Date.now() - before < 60_000) return;
  sessionStorage.setItem(key, String(Date.now()));
  event.preventDefault();
  location.reload();
});

showTheme(themeOfBrowser());
const who = askWho();
// Whoever waits for it says what is wrong; nobody else is to be told of it.
who.catch(() => undefined);

const root = document.getElementById("page");
speak(languageOfBrowser())
  .then(() => root && render(<App who={who} />, root))
  .catch(() => {
    // No words were loaded, so this stands here in both languages.
    root?.append("This page could not be loaded. Please reload it. · Страница не загрузилась. Обновите её.");
  });
