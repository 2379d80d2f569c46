import { useEffect, useRef, useState } from "preact/hooks";
import { ask, queryOf } from "../api/client";
import { Pick } from "../parts/pick";
import { Show } from "../parts/states";
import { Moment } from "../parts/status";
import { useLoad } from "../state/load";
import { t, textOf } from "../words";
import { State } from "./table";

interface LogLine {
  timestamp: string;
  service: string;
  instance?: string | null;
  level: string;
  message: string;
}

const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"];
/** More lines are on no screen, and memory is not for ever. */
const MOST = 500;
/** Lines come in hundreds: they are drawn together. */
const GATHER_MS = 250;

export function Logs() {
  const [typed, setTyped] = useState("");
  const [text, setText] = useState("");
  const [level, setLevel] = useState("INFO");
  const [follow, setFollow] = useState(false);
  const query = queryOf({ text, min_level: level, limit: 200 });
  const found = useLoad(`logs ${query}`, (signal) =>
    ask<LogLine[]>("get", `/admin/logs${query}`, undefined, { signal }),
  );
  const fresh = useFollowed(follow, queryOf({ text, min_level: level, follow: true }));
  return (
    <>
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault();
          setText(typed);
        }}
      >
        <span class="pick">
          <label for="log-text" class="small">
            {textOf("o_search")}
          </label>
          <input id="log-text" type="search" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
        </span>
        <Pick label={textOf("o_level")} value={level} options={LEVELS.map((each) => [each, each])} pick={setLevel} />
        <button class="button" type="submit">
          {textOf("o_search")}
        </button>
        <label class="check">
          <input type="checkbox" checked={follow} onChange={(event) => setFollow(event.currentTarget.checked)} />
          {textOf("o_follow")}
        </label>
      </form>
      <Show loaded={found} rows={10}>
        {(lines) => <Lines lines={[...lines, ...fresh].slice(-MOST)} />}
      </Show>
    </>
  );
}

/** What comes while somebody follows, in the order in which it came. */
function useFollowed(on: boolean, query: string): readonly LogLine[] {
  const [lines, setLines] = useState<readonly LogLine[]>([]);
  const gathered = useRef<LogLine[]>([]);
  useEffect(() => {
    setLines([]);
    if (!on) return undefined;
    const source = new EventSource(`/admin/logs${query}`);
    let timer: ReturnType<typeof setTimeout> | undefined;
    source.addEventListener("log", (event: MessageEvent<string>) => {
      gathered.current.push(JSON.parse(event.data) as LogLine);
      timer ??= setTimeout(() => {
        timer = undefined;
        const news = gathered.current;
        gathered.current = [];
        setLines((now) => [...now, ...news].slice(-MOST));
      }, GATHER_MS);
    });
    return () => {
      clearTimeout(timer);
      gathered.current = [];
      source.close();
    };
  }, [on, query]);
  return lines;
}

function Lines({ lines }: { lines: readonly LogLine[] }) {
  if (lines.length === 0) return <p class="muted">{textOf("o_noLogs")}</p>;
  return (
    <div class="table-frame" tabIndex={0} role="log" aria-live="off" aria-label={textOf("o_logs")}>
      <table>
        <thead>
          <tr>
            <th scope="col">{t("when")}</th>
            <th scope="col">{textOf("o_level")}</th>
            <th scope="col">{textOf("o_service")}</th>
            <th scope="col">{t("what")}</th>
          </tr>
        </thead>
        <tbody>
          {lines
            .map((line, index) => (
              <tr key={`${line.timestamp} ${index}`}>
                <td>
                  <Moment at={line.timestamp} />
                </td>
                <td>
                  <State state={line.level.toLowerCase()} />
                </td>
                <td>{line.instance ?? line.service}</td>
                <td>
                  <code>{line.message}</code>
                </td>
              </tr>
            ))
            .reverse()}
        </tbody>
      </table>
    </div>
  );
}
