import { Component, type ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { call, queryOf, type Schemas } from "../api/client";
import { Pick } from "../parts/pick";
import { Show } from "../parts/states";
import { Moment } from "../parts/status";
import { TableFrame } from "../parts/table";
import { usePlace } from "../router";
import { useLoad } from "../state/load";
import { t, textOf, useLanguage } from "../words";
import { saidBy } from "./log_fields";
import { State } from "./state";

type LogLine = Schemas["ShownRecord"];
/** A line with a unique number, its key while other lines are added. */
interface Numbered {
  number: number;
  line: LogLine;
}

const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"] as const;
const SERVICES = [
  ...["app", "dispatcher", "ml_worker", "model_service", "preprocessing_service", "monitoring_service"],
  ...["telegram_bot"],
];
/** Lines that are kept; older ones are dropped to limit memory. */
const MOST = 500;
/** Lines that arrive within this time are drawn together, because there may be hundreds. */
const GATHER_MS = 250;

export function Logs() {
  const { query: place } = usePlace();
  const [typed, setTyped] = useState("");
  const [text, setText] = useState("");
  const [level, setLevel] = useState<string>("INFO");
  const [service, setService] = useState(place.get("service") ?? "");
  const [follow, setFollow] = useState(false);
  const wanted = { text: text || undefined, min_level: level, service: service || undefined };
  const found = useLoad(`logs ${queryOf(wanted)}`, async (signal) =>
    numbered(await call("get", "/admin/logs", { query: { ...wanted, limit: 200 }, signal })),
  );
  const { lines: fresh, broken } = useFollowed(follow, queryOf({ ...wanted, follow: true }));
  return (
    <>
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault();
          setText(typed);
          found.reload();
        }}
      >
        <span class="pick">
          <label for="log-text" class="small">
            {textOf("o_search")}
          </label>
          <input id="log-text" type="search" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
        </span>
        <Pick
          label={textOf("o_service")}
          value={service}
          options={[["", t("all")], ...SERVICES.map((each) => [each, each] as const)]}
          pick={setService}
        />
        <Pick label={textOf("o_level")} value={level} options={LEVELS.map((each) => [each, each])} pick={setLevel} />
        <button class="button" type="submit">
          {textOf("o_search")}
        </button>
        <label class="check">
          <input type="checkbox" checked={follow} onChange={(event) => setFollow(event.currentTarget.checked)} />
          {textOf("o_follow")}
        </label>
      </form>
      {broken && (
        <p class="notice warn" role="status">
          {textOf("o_followBroken")}
        </p>
      )}
      <Show loaded={found} rows={10}>
        {(lines) => <Lines lines={[...lines, ...fresh].slice(-MOST)} />}
      </Show>
    </>
  );
}

let count = 0;

function numbered(lines: readonly LogLine[]): readonly Numbered[] {
  return lines.map((line) => ({ number: (count += 1), line }));
}

/** The streamed lines in order of arrival, and whether the stream is broken. */
function useFollowed(on: boolean, query: string): { lines: readonly Numbered[]; broken: boolean } {
  const [lines, setLines] = useState<readonly Numbered[]>([]);
  const [broken, setBroken] = useState(false);
  const gathered = useRef<LogLine[]>([]);
  useEffect(() => {
    setLines([]);
    setBroken(false);
    if (!on) return undefined;
    const source = new EventSource(`/admin/logs${query}`);
    let timer: ReturnType<typeof setTimeout> | undefined;
    source.addEventListener("open", () => setBroken(false));
    // The browser reconnects by itself.
    source.addEventListener("error", () => setBroken(true));
    source.addEventListener("log", (event: MessageEvent<string>) => {
      gathered.current.push(JSON.parse(event.data) as LogLine);
      timer ??= setTimeout(() => {
        timer = undefined;
        const news = numbered(gathered.current.slice(-MOST));
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
  return { lines, broken };
}

function Lines({ lines }: { lines: readonly Numbered[] }) {
  const language = useLanguage();
  if (lines.length === 0) return <p class="muted">{textOf("o_noLogs")}</p>;
  return (
    <TableFrame role="log" label={textOf("o_logs")}>
      <table class="rows">
        <thead>
          <tr>
            <th scope="col">{t("when")}</th>
            <th scope="col">{textOf("o_level")}</th>
            <th scope="col">{textOf("o_service")}</th>
            <th scope="col">{t("what")}</th>
          </tr>
        </thead>
        <tbody>
          {lines.map(({ number, line }) => <Line key={number} line={line} language={language} />).reverse()}
        </tbody>
      </table>
    </TableFrame>
  );
}

/** One line. It never changes, so it is drawn only once. */
class Line extends Component<{ line: LogLine; language: string }> {
  override shouldComponentUpdate(next: { line: LogLine; language: string }): boolean {
    return next.line !== this.props.line || next.language !== this.props.language;
  }

  override render(): ComponentChildren {
    const { line } = this.props;
    return (
      <tr>
        <td>
          <Moment at={line.timestamp} exact />
        </td>
        <td>
          <State state={line.level.toLowerCase()} />
        </td>
        <td>{line.instance ?? line.service}</td>
        <td class="whole">
          <code>{line.message}</code>
          <Fields line={line} />
        </td>
      </tr>
    );
  }
}

/** The fields of a line besides its message. */
function Fields({ line }: { line: LogLine }) {
  const said = saidBy(line);
  const [short, long] = [
    said.filter(([, value]) => !value.includes("\n")),
    said.filter(([, value]) => value.includes("\n")),
  ];
  return (
    <>
      {short.length > 0 && (
        <div class="pairs small">
          {short.map(([name, value]) => (
            <span key={name}>
              <span class="muted">{name}=</span>
              {value}
            </span>
          ))}
        </div>
      )}
      {long.map(([name, value]) => (
        <details key={name} class="small">
          <summary>{name}</summary>
          <pre>{value}</pre>
        </details>
      ))}
    </>
  );
}
