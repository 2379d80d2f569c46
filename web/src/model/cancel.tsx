import { call } from "../api/client";
import { Problem } from "../api/problem";
import { ActButton } from "../parts/states";
import { askBalance } from "../state/session";
import { t } from "../words";

/** Cancels a queued prediction. One that has ended meanwhile is no error; its result is shown. */
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
