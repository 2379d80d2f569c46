import { beforeAll, describe, expect, it } from "vitest";
import { speak } from "../words";
import { boundsHint } from "./bounds";
import { draftOf, emptyDraft, numberOf, objectDraft, placeOf, readForm, type Draft, type Field } from "./draft";

function field(more: Partial<Field> & Pick<Field, "name" | "kind">): Field {
  return {
    title: { en: more.name, ru: more.name },
    description: null,
    required: true,
    nullable: false,
    unique_items: false,
    ...more,
  };
}

const FIELDS: Field[] = [
  field({ name: "carrier", kind: "choice", choices: ["AA", "DL"].map((v) => ({ value: v, label: { en: v, ru: v } })) }),
  field({ name: "distance", kind: "number", exclusive_minimum: 0, maximum: 5000 }),
  field({ name: "seats", kind: "integer", required: false, nullable: true, minimum: 1, multiple_of: 2 }),
  field({ name: "note", kind: "text", required: false, max_length: 3 }),
  field({ name: "window", kind: "boolean", required: false }),
  field({ name: "at", kind: "time" }),
  field({ name: "more", kind: "json", required: false }),
  field({
    name: "bags",
    kind: "list",
    required: false,
    max_items: 2,
    items: field({ name: "bags", kind: "object", fields: [field({ name: "kg", kind: "number" })] }),
  }),
];
const WHOLE = {
  carrier: "DL",
  distance: 0.5,
  seats: null,
  note: "🛫🛬!",
  window: false,
  at: "09:30",
  more: { any: [1, null] },
  bags: [{ kg: 12 }, { kg: 0 }],
};

function typed(values: Record<string, string>): Record<string, Draft> {
  const base = objectDraft(FIELDS, { ...WHOLE }).fields;
  return { ...base, ...Object.fromEntries(Object.entries(values).map(([k, text]) => [k, { kind: "text", text }])) };
}

beforeAll(() => speak("en"));

describe("a form", () => {
  it("gives back every value that was put in, also zero, false, null and an emoji", () => {
    const read = readForm(FIELDS, objectDraft(FIELDS, WHOLE).fields);
    expect(read.wrongs).toEqual({});
    expect(read.value).toEqual(WHOLE);
  });

  it("leaves out what was left out, and says what is missing", () => {
    const read = readForm(FIELDS, objectDraft(FIELDS, {}).fields);
    expect(read.value).toEqual({});
    expect(Object.keys(read.wrongs).sort()).toEqual(["at", "carrier", "distance"]);
  });

  it.each([
    ["distance", "0", "above 0"],
    ["distance", "5001", "At most 5,000"],
    ["distance", "12,", ""],
    ["distance", "1 000,5", ""],
    ["distance", "1e400", "not a number"],
    ["distance", "abc", "not a number"],
    ["seats", "2.5", "whole number"],
    ["seats", "3", "multiple of 2"],
    ["note", "abcd", "At most 3 characters"],
    ["at", "25:00", "17:45"],
    ["more", "{", "not valid JSON"],
  ])("judges %s = %s", (name, text, wrong) => {
    const { wrongs } = readForm(FIELDS, typed({ [name]: text }));
    if (wrong) expect(wrongs[name]).toContain(wrong);
    else expect(wrongs).toEqual({});
  });

  it("says which item of a list is wrong, and when there are too many", () => {
    const bags = { ...WHOLE, bags: [{ kg: 1 }, {}, { kg: 2 }] };
    const { wrongs } = readForm(FIELDS, objectDraft(FIELDS, bags).fields);
    expect(Object.keys(wrongs).sort()).toEqual(["bags", "bags/1/kg"]);
  });

  it("starts with defaults, and a switch that must be there is off", () => {
    expect(emptyDraft(field({ name: "n", kind: "number", default: 5 }))).toEqual({ kind: "text", text: "5" });
    expect(emptyDraft(field({ name: "b", kind: "boolean" }))).toEqual({ kind: "boolean", value: false });
    expect(emptyDraft(field({ name: "b", kind: "boolean", nullable: true }))).toEqual({ kind: "none" });
  });

  it("does not take a value of another kind", () => {
    expect(draftOf(FIELDS[0] as Field, "ZZ")).toEqual({ kind: "none" });
    expect(draftOf(FIELDS[1] as Field, "12")).toEqual({ kind: "none" });
  });
});

describe("what the API finds wrong", () => {
  it.each([
    [["carrier"], "carrier"],
    [["bags", "1", "kg"], "bags/1/kg"],
    [["more", "any", "0"], "more"],
    [["unknown"], ""],
    [[], ""],
  ])("%j stands at %s", (steps, place) => {
    expect(placeOf(FIELDS, steps)).toBe(place);
  });
});

describe("numbers as people type them", () => {
  it.each([
    ["1,5", 1.5],
    [".5", 0.5],
    ["1\u00a0000", 1000],
    ["-3e2", -300],
    ["", null],
    ["1.2.3", null],
    ["Infinity", null],
    ["0x10", null],
  ])("%s", (text, number) => {
    expect(numberOf(text)).toBe(number);
  });
});

it("says the bounds of a number as they are", () => {
  const hint = (more: Partial<Field>) => boundsHint(field({ name: "n", kind: "number", ...more }));
  expect(hint({ minimum: 0, maximum: 23 })).toBe("From 0 to 23");
  expect(hint({ exclusive_minimum: 0, maximum: 10 })).toBe("Must be above 0. At most 10");
  expect(hint({ minimum: 1 })).toBe("At least 1");
  expect(hint({ exclusive_maximum: 1 })).toBe("Must be below 1");
  expect(hint({})).toBe("");
});

describe("a whole number beyond those of JavaScript", () => {
  const LARGE = 9007199254740993n;
  const whole = field({ name: "id", kind: "integer", minimum: 1 });

  it("is sent and shown as it was typed or given", () => {
    const read = readForm([whole], { id: { kind: "text", text: "9007199254740993" } });
    expect([read.value, read.wrongs]).toEqual([{ id: LARGE }, {}]);
    expect(draftOf(whole, LARGE)).toEqual({ kind: "text", text: "9007199254740993" });
    const json = field({ name: "more", kind: "json" });
    expect(readForm([json], { more: draftOf(json, { a: LARGE }) }).value).toEqual({ more: { a: LARGE } });
  });

  it("is checked as exactly", () => {
    const wrongs = (text: string, more: Partial<Field>): string | undefined =>
      readForm([{ ...whole, ...more }], { id: { kind: "text", text } }).wrongs["id"];
    // As the API gives such a bound.
    const bound = { maximum: 9007199254740992n as unknown as number };
    expect(wrongs("9007199254740993", bound)).toBe("At most 9,007,199,254,740,992");
    expect(wrongs("9007199254740992", bound)).toBeUndefined();
    expect(wrongs("9007199254740993", { multiple_of: 2 })).toContain("2");
    expect(wrongs("9007199254740994", { multiple_of: 2 })).toBeUndefined();
    expect(wrongs("-9007199254740993", {})).toContain("1");
    expect(boundsHint({ ...whole, ...bound })).toContain("9,007,199,254,740,992");
  });
});
