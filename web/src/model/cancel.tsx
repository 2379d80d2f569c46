import { call } from "../api/client";
import { Problem } from "../api/problem";
import { ActButton } from "../parts/states";
import { askBalance } from "../state/session";
import { t } from "../words";

/** Takes a prediction back while it waits. One that has ended meanwhile is no error: it is shown as it is. */
export function CancelButton({ id, done, little = false }: { id: string; done: () => void; little?: boolean }) {
  return (
    <ActButton
      kind={little ? "little" : ""}
      act={async () => {
        try {
          await call("delete", "/predictions/{prediction_id}", { path: { prediction_id: id } });
        } catch (error) {
          if (!(error instanceof Problem) || error.code !== "already_finished") throw error;
        }
        void askBalance();
        done();
      }}
    >
      {t("cancelIt")}
    </ActButton>
  );
}
