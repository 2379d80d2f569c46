import type { ComponentChildren } from "preact";

export interface Column<T> {
  name: string;
  cell: (row: T) => ComponentChildren;
  right?: boolean;
}

/** A table of rows that may change many times a second: rows are told apart by `id`, so that only what changed is drawn. */
export function Table<T>({
  columns,
  rows,
  id,
  label,
}: {
  columns: readonly Column<T>[];
  rows: readonly T[];
  id: (row: T) => string | number;
  label: string;
}) {
  return (
    <div class="table-frame" tabIndex={0} role="group" aria-label={label}>
      <table>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.name} scope="col" class={column.right ? "to-right" : ""}>
                {column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={id(row)}>
              {columns.map((column) => (
                <td key={column.name} class={column.right ? "number to-right" : ""}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const COLORS: Record<string, string> = {
  healthy: "good",
  ok: "good",
  stable: "good",
  stopped: "",
  degraded: "warn",
  pending: "warn",
  warning: "warn",
  unhealthy: "bad",
  down: "bad",
  missing: "bad",
  firing: "bad",
  critical: "bad",
  error: "bad",
  drifted: "bad",
};

export function State({ state }: { state: string }) {
  return <span class={`chip ${COLORS[state.toLowerCase()] ?? ""}`}>{state.replaceAll("_", " ")}</span>;
}
