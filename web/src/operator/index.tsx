import type { PageProps } from "../app";
import { NotFoundPage } from "../pages/not_found";
import { session } from "../state/session";
import { useStore } from "../state/store";

/** What the operator sees; to everybody else, there is nothing here. */
export function OperatorPage({ params }: { params: PageProps }) {
  const now = useStore(session);
  if (now.state !== "in" || now.user.role !== "operator") return <NotFoundPage />;
  return <p>{params["rest"]}</p>;
}
