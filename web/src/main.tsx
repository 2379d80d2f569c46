import { render } from "preact";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/tables.css";
import "./styles/form.css";
import { App } from "./app";
import { askWho } from "./state/session";
import { showTheme, themeOfBrowser } from "./state/theme";
import { languageOfBrowser, speak } from "./words";

showTheme(themeOfBrowser());
const who = askWho();
// `App` handles the rejection; this avoids an "unhandled rejection" before that.
who.catch(() => undefined);

const root = document.getElementById("page");
speak(languageOfBrowser())
  .then(() => root && render(<App who={who} />, root))
  .catch(() => {
    // No words were loaded, so this stands here in both languages.
    root?.append("This page could not be loaded. Please reload it. · Страница не загрузилась. Обновите её.");
  });
