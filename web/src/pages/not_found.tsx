import { Empty } from "../parts/states";
import { t } from "../words";

export function NotFoundPage() {
  return (
    <>
      <h1 class="page-title">{t("notFound")}</h1>
      <Empty
        action={
          <a class="button" href="/ui/models">
            {t("toModels")}
          </a>
        }
      >
        {t("nothingHere")}
      </Empty>
    </>
  );
}
