import type { FieldProblem } from "../api/problem";
import type { Field } from "../form/draft";
import { refusalsOf } from "../form/wording";
import { t } from "../words";

/** What was sent and refused: kept as the API said it, so that it is worded anew in another language. */
export interface Refused {
  input: unknown;
  errors: readonly Partial<FieldProblem>[];
}

/** All that is wrong with an input that was typed as JSON, each with its place: there is no input to put it at. */
export function Refusals({ refused, fields, id }: { refused: Refused; fields: readonly Field[]; id: string }) {
  return (
    <div class="stack tight" role="alert" id={id}>
      <p class="wrong">{t("inputIsWrong")}</p>
      <ul class="stack tight refusals">
        {refusalsOf(refused.errors, fields, refused.input).map(({ path, reason }) => (
          <li key={`${path} ${reason}`}>
            {path ? <code>{path}</code> : <span>{t("wholeInput")}</span>}: {reason}
          </li>
        ))}
      </ul>
    </div>
  );
}
