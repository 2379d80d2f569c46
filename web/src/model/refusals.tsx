import type { FieldProblem } from "../api/problem";
import type { Field } from "../form/draft";
import { refusalsOf } from "../form/wording";
import { t } from "../words";

/** A refused input with the API's errors, from which the texts are made in the page's current language. */
export interface Refused {
  input: unknown;
  errors: readonly Partial<FieldProblem>[];
}

/** The errors of an input that was typed as JSON, each with its path, because there are no form inputs to mark. */
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
