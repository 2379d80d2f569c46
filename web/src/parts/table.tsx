import type { ComponentChildren } from "preact";
import { useSideways } from "./sideways";

export interface Column<T> {
  name: string;
  cell: (row: T) => ComponentChildren;
  right?: boolean;
  /** The name is only for screen readers. */
  unnamed?: boolean;
}

/** The frame of every table: a table that is too wide is scrolled, and shows that there is more. */
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
 * A table of rows that may change many times a second: `id` identifies a row, so that only changes are drawn. On a
 * phone, a row is a block: with `labelled` of one line for each cell with its column's name, else as the style sheet
 * places the cells of this `kind`.
 */
export function Table<T>({
  columns,
  rows,
  id,
  label,
  labelled = false,
  kind = "",
}: {
  columns: readonly Column<T>[];
  rows: readonly T[];
  id: (row: T) => string | number;
  label: string;
  labelled?: boolean;
  kind?: string;
}) {
  return (
    <TableFrame label={label}>
      <table class={labelled ? "rows labelled" : `rows ${kind}`}>
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
                  class={column.right ? "number to-right" : ""}
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
