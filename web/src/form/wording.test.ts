import { beforeEach, describe, expect, it } from "vitest";
import { speak } from "../words";
import type { Field } from "./draft";
import { refusalsOf } from "./wording";

function field(more: Partial<Field> & Pick<Field, "name" | "kind">): Field {
  const title = { en: more.name, ru: more.name };
  return { title, description: null, required: true, nullable: false, unique_items: false, ...more };
}

const FIELDS: Field[] = [
  field({ name: "count", kind: "integer", minimum: 0, maximum: 10 }),
  field({ name: "a/b", kind: "text", max_length: 3 }),
  field({ name: "bag", kind: "object", fields: [field({ name: "kg", kind: "number" })] }),
  field({ name: "tags", kind: "list", max_items: 3, items: field({ name: "tags", kind: "text", min_length: 1 }) }),
];
const INPUT = { count: 99, "a/b": 5, bag: {}, tags: ["a", ""], colour: "red" };
const ERRORS = [
  { pointer: "#/input/count", detail: "99 is greater than 10" },
  { pointer: "#/input/a~1b", detail: "5 is not a string" },
  { pointer: "#/input/bag/kg", detail: "is missing" },
  { pointer: "#/input/tags/1", detail: "is too short" },
  { pointer: "#/input/colour", detail: "is not expected" },
  { pointer: "#/input", detail: "the two do not go together" },
];

describe("what the API refuses", () => {
  beforeEach(() => speak("en"));

  it("has its place and the words of the API, of everything that is wrong", () => {
    expect(refusalsOf(ERRORS, FIELDS, INPUT)).toEqual(
      ERRORS.map(({ detail }, index) => ({
        path: ["count", "a/b", "bag/kg", "tags/1", "colour", ""][index],
        reason: detail,
      })),
    );
  });

  it("is said in Russian, too", async () => {
    await speak("ru");
    expect(refusalsOf(ERRORS, FIELDS, INPUT).map(({ reason }) => reason)).toEqual([
      "Не больше 10",
      "Нужен текст.",
      "Заполните это поле.",
      "Заполните это поле.",
      "Такого поля нет.",
      "Не подходит по форме. (the two do not go together)",
    ]);
  });

  it("inside an object of which the API says only that it does not fit is found", () => {
    const input = { ...INPUT, bag: { kg: "heavy" } };
    expect(refusalsOf([{ pointer: "#/input/bag", detail: "fits neither" }], FIELDS, input)).toEqual([
      { path: "bag/kg", reason: "This is not a number." },
    ]);
  });

  it("of an input that is no object is told of the whole", async () => {
    await speak("ru");
    expect(refusalsOf([{ pointer: "#/input", detail: "is not an object" }], FIELDS, 7)).toEqual([
      { path: "", reason: "Нужен объект." },
    ]);
  });
});
