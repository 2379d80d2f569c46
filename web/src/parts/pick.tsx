import { useId } from "preact/hooks";

/** A small select with its label beside it. */
export function Pick({
  label,
  value,
  options,
  pick,
}: {
  label: string;
  value: string;
  options: readonly (readonly [string, string])[];
  pick: (value: string) => void;
}) {
  const id = useId();
  return (
    <span class="pick">
      <label for={id} class="small">
        {label}
      </label>{" "}
      <select id={id} value={value} onChange={(event) => pick(event.currentTarget.value)}>
        {options.map(([each, name]) => (
          <option key={each} value={each}>
            {name}
          </option>
        ))}
      </select>
    </span>
  );
}
