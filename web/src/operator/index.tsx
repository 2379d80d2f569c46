import type { ComponentType } from "preact";
import type { PageProps } from "../app";
import { NotFoundPage } from "../pages/not_found";
import { useSideways } from "../parts/sideways";
import { Title } from "../parts/title";
import { session } from "../state/session";
import { useStore } from "../state/store";
import { addWords, textOf } from "../words";
import { Alerts } from "./alerts";
import { Drift } from "./drift";
import { Glance } from "./glance";
import { Journal } from "./journal";
import { Logs } from "./logs";
import { Models } from "./models";
import { Predictions } from "./predictions";
import { Queues } from "./queues";
import { Traffic } from "./traffic";
import { User, Users } from "./users";
import { operatorWords } from "./words";
import { Workers } from "./workers";

addWords(operatorWords);

const SECTIONS: readonly [string, ComponentType][] = [
  ["glance", Glance],
  ["workers", Workers],
  ["traffic", Traffic],
  ["queues", Queues],
  ["drift", Drift],
  ["alerts", Alerts],
  ["logs", Logs],
  ["users", Users],
  ["models", Models],
  ["predictions", Predictions],
  ["journal", () => <Journal />],
];

/** The operators' pages; other users get "not found". */
export function OperatorPage({ params }: { params: PageProps }) {
  const now = useStore(session);
  const nav = useSideways<HTMLElement>();
  if ((now.state !== "in" && now.state !== "over") || now.user.role !== "operator") return <NotFoundPage />;
  const [, name = "", id = ""] = (params["rest"] ?? "").split("/");
  const section = SECTIONS.find(([each]) => each === (name || "glance"));
  if (!section) return <NotFoundPage />;
  const [current, Section] = section;
  return (
    <>
      <Title text={textOf(`o_${current}`)} />
      <nav class="nav sections sideways" ref={nav} aria-label={textOf("o_sections")}>
        {SECTIONS.map(([each]) => (
          <a
            key={each}
            href={each === "glance" ? "/ui/operator" : `/ui/operator/${each}`}
            aria-current={each === current ? "page" : undefined}
          >
            {textOf(`o_${each}`)}
          </a>
        ))}
      </nav>
      <div class="stack">{current === "users" && id ? <User key={id} id={id} /> : <Section />}</div>
    </>
  );
}
