import type { ComponentChildren } from "preact";
import { useSideways } from "./sideways";

export interface Column<T> {
  name: string;
  cell: (row: T) => ComponentChildren;
  right?: boolean;
  /** Its name is for screen readers only. */
  unnamed?: boolean;
  /** On a phone it has a line of its own. */
  whole?: boolean;
}

/** What stands around every table: one that is wider than its place is scrolled, and shows that there is more. */
export function TableFrame({
  label,
  role = "group",
  children,
}: {
  label: string;
  role?: "group" | "log";
  children: ComponentChildren;
}) {
  const frame = useSideways<HTMLDivElement>();
  return (
    <div
      class="table-frame sideways"
      ref={frame}
      tabIndex={0}
      role={role}
      aria-live={role === "log" ? "off" : undefined}
      aria-label={label}
    >
      {children}
    </div>
  );
}

/**
 * A table of rows that may change many times a second: rows are told apart by `id`, so that only what changed is drawn.
 * On a phone, a row is a block: of cells side by side, or with `labelled` of a line for each cell with the column's name.
 */
export function Table<T>({
  columns,
  rows,
  id,
  label,
  labelled = false,
}: {
  columns: readonly Column<T>[];
  rows: readonly T[];
  id: (row: T) => string | number;
  label: string;
  labelled?: boolean;
}) {
  return (
    <TableFrame label={label}>
      <table class={labelled ? "rows labelled" : "rows"}>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.name} scope="col" class={column.right ? "to-right" : ""}>
                {column.unnamed ? <span class="unseen">{column.name}</span> : column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={id(row)}>
              {columns.map((column) => (
                <td
                  key={column.name}
                  class={`${column.right ? "number to-right" : ""}${column.whole ? " whole" : ""}`}
                  data-name={column.unnamed ? undefined : column.name}
                >
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </TableFrame>
  );
}
