import { makeStore, useStore } from "../state/store";
import { t } from "../words";

interface Message {
  id: number;
  text: string;
  kind: "good" | "warn" | "bad";
}

const STAYS_MS = 8000;
const messages = makeStore<readonly Message[]>([]);
let count = 0;

/** Removes all messages. */
export function forgetMessages(): void {
  messages.set([]);
}

/** Shows a message about something outside the visible part of the page. */
export function say(text: string, kind: Message["kind"] = "good"): void {
  count += 1;
  const message = { id: count, text, kind };
  messages.set([...messages.get(), message]);
  setTimeout(() => drop(message.id), STAYS_MS);
}

function drop(id: number): void {
  messages.set(messages.get().filter((each) => each.id !== id));
}

export function Messages() {
  const shown = useStore(messages);
  return (
    <div class="messages" role="status" aria-live="polite">
      {shown.map((message) => (
        <div key={message.id} class={`notice ${message.kind}`}>
          <span class="row apart">
            <span class="grow">{message.text}</span>
            <button class="button little quiet" type="button" onClick={() => drop(message.id)}>
              {t("close")}
            </button>
          </span>
        </div>
      ))}
    </div>
  );
}
