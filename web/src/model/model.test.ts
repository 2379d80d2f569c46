import { beforeEach, describe, expect, it } from "vitest";
import type { Schemas } from "../api/client";
import { stepsOf } from "../api/problem";
import type { Field } from "../form/draft";
import { formatBytes, formatSecond, formatSeconds, speak, t } from "../words";
import { measured, measuresOf, readAnswer } from "./answer";
import { countsOf, questionsOf, stepsOfField } from "./grid";
import { pythonValue, snippet } from "./snippets";

const words = (en: string, ru: string) => ({ en, ru });
const SENTIMENT = {
  name: "sentiment",
  labels: { positive: words("Positive", "Положительная"), negative: words("Negative", "Отрицательная") },
  output_schema: {
    properties: {
      label: { enum: ["positive", "negative"] },
      probabilities: {
        type: "object",
        properties: {
          positive: { type: "number", minimum: 0, maximum: 1 },
          negative: { type: "number", minimum: 0, maximum: 1 },
        },
      },
      words: { type: "integer", title: "Words", "x-title-ru": "Слова" },
    },
  },
} as unknown as Schemas["Model"];

beforeEach(() => speak("en"));

describe("an answer", () => {
  const output = { label: "negative", probabilities: { positive: 0.2, negative: 0.8 }, words: 12 };

  it("has its label, its classes from the most probable on, and the rest", () => {
    expect(readAnswer(SENTIMENT, output)).toEqual({
      label: "Negative",
      probability: null,
      classes: [
        { name: "Negative", value: 0.8, chosen: true },
        { name: "Positive", value: 0.2, chosen: false },
      ],
      rest: [{ name: "Words", text: "12" }],
    });
  });

  it("speaks Russian", async () => {
    await speak("ru");
    expect(readAnswer(SENTIMENT, output).label).toBe("Отрицательная");
    expect(readAnswer(SENTIMENT, output).rest[0]?.name).toBe("Слова");
  });

  it("of a model that nobody knows is shown all the same", () => {
    expect(readAnswer(undefined, { price: 1234.5, tags: ["a"] }).rest.map((each) => each.name)).toEqual([
      "price",
      "tags",
    ]);
    expect(readAnswer(undefined, [1, 2]).rest[0]?.text).toContain("1");
  });

  it("shows large whole numbers as they are", () => {
    expect(readAnswer(undefined, { id: 9007199254740993n }).rest[0]?.text).toBe("9,007,199,254,740,993");
    expect(readAnswer(undefined, { ids: [9007199254740993n] }).rest[0]?.text).toContain("9007199254740993");
  });

  it("has numbers to draw, the probabilities first", () => {
    const measures = measuresOf(SENTIMENT);
    expect(measures.map((each) => each.path.join("."))).toEqual([
      "probabilities.positive",
      "probabilities.negative",
      "words",
    ]);
    expect(measured(output, ["probabilities", "negative"])).toBe(0.8);
    expect(measured(null, ["x"])).toBeNull();
  });
});

describe("a grid of questions", () => {
  const along = { name: "hour", kind: "integer", minimum: 0, maximum: 23 } as Field;
  const across = { name: "wet", kind: "boolean" } as Field;

  it("asks each pair once and leaves all else as it is", () => {
    const steps = stepsOfField(along, 7, 3);
    expect(steps[0]?.value).toBe(0);
    expect(steps.at(-1)?.value).toBe(23);
    const questions = questionsOf(
      { hour: 3, carrier: "AA" },
      { field: along, steps },
      {
        field: across,
        steps: stepsOfField(across, 0, undefined),
      },
    );
    expect(questions).toHaveLength(14);
    expect(new Set(questions.map((each) => JSON.stringify(each.input))).size).toBe(14);
    expect(questions.every((each) => each.input["carrier"] === "AA")).toBe(true);
  });

  it("has no two equal points where there are few whole numbers", () => {
    const few = stepsOfField({ ...along, maximum: 2 }, 25, undefined);
    expect(few.map((each) => each.value)).toEqual([0, 1, 2]);
  });

  it.each([
    [{ name: "at", kind: "time" }, [8, 12, 24]],
    [{ name: "miles", kind: "number", minimum: 0, maximum: 1 }, [7, 13, 25]],
    [along, [7, 13, 24]],
    [{ ...along, maximum: 2 }, [3]],
    [across, [2]],
  ])("offers as many points as it has: %o", (field, given) => {
    const counts = countsOf(field as Field, undefined);
    expect(counts.map((each) => each.given)).toEqual(given);
    for (const each of counts) expect(stepsOfField(field as Field, each.asked, undefined)).toHaveLength(each.given);
  });

  it("stays inside bounds that do not belong to the range", () => {
    const open = { name: "miles", kind: "number", exclusive_minimum: 0, maximum: 5000 } as Field;
    expect(Number(stepsOfField(open, 13, undefined)[0]?.value)).toBeGreaterThan(0);
  });
});

describe("the same request for a program", () => {
  const order = { model: "sentiment", input: { text: 'it\'s "fine"\n', ok: true, none: null, list: [1, []] } };

  it("keeps quotes out of the shell", () => {
    expect(snippet("curl", order, "ftl_key", "http://here")).toContain("it'\\''s");
    expect(snippet("curl", order, "ftl_key", "http://here")).toContain("X-API-Key: ftl_key");
  });

  it("keeps large whole numbers as they are, in JavaScript, too", () => {
    const large = { model: "m", input: { id: 9007199254740993n } };
    expect(snippet("curl", large, "k", "http://here")).toContain('"id": 9007199254740993');
    expect(snippet("python", large, "k", "http://here")).toContain('"id": 9007199254740993');
    const program = snippet("javascript", large, "k", "http://here");
    const body = /body: (".*"),/.exec(program)?.[1] ?? "";
    expect(JSON.parse(body)).toBe('{"model":"m","input":{"id":9007199254740993}}');
    expect(snippet("javascript", order, "k", "http://here")).toContain("body: JSON.stringify({");
  });

  it("writes Python as Python does", () => {
    expect(pythonValue(order.input, 0)).toContain('"ok": True');
    expect(pythonValue(order.input, 0)).toContain('"none": None');
    expect(pythonValue({}, 0)).toBe("{}");
  });
});

describe("words", () => {
  it.each([
    [1, "1 кредит"],
    [2, "2 кредита"],
    [5, "5 кредитов"],
    [21, "21 кредит"],
    [112, "112 кредитов"],
  ])("counts %i in Russian", async (n, text) => {
    await speak("ru");
    expect(t("credits", { n })).toBe(text);
  });

  it("writes sizes and moments as the language has them", async () => {
    expect([512, 3100, 120e6].map(formatBytes)).toEqual(["512 byte", "3.1 kB", "120 MB"]);
    expect(formatSecond("2026-01-31T09:30:07Z")).toContain(":07");
    await speak("ru");
    expect(formatBytes(3100)).toMatch(/^3,1\sкБ$/);
  });

  it("writes times short", () => {
    expect([0.004, 1.34, 300, 7200].map(formatSeconds)).toEqual(["4 ms", "1.3 sec", "5 min", "2 hr"]);
  });
});

describe("a JSON Pointer", () => {
  it.each([
    ["#/input/a~1b/0", ["input", "a/b", "0"]],
    ["#/input/%D1%8F~0", ["input", "я~"]],
    ["#", []],
    ["#/%zz", ["%zz"]],
  ])("%s", (pointer, steps) => {
    expect(stepsOf(pointer)).toEqual(steps);
  });
});
