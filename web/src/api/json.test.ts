import { expect, test } from "vitest";
import { hasLarge, parseJson, wholeOf, writeJson } from "./json";

test.each([
  '{"a":9007199254740993,"b":[-9223372036854775808,1],"c":"9007199254740993 \\" 1"}',
  "12345678901234567890123456789",
  '{"9007199254740993":null}',
  '["\\\\",9007199254740993,"\\"9007199254740993\\""]',
])("whole numbers stay as they are written: %s", (text) => {
  expect(writeJson(parseJson(text))).toBe(text);
});

test("everything else is as with JSON.parse", () => {
  const text = '{"a": 9007199254740991, "b": 0.12345678901234567, "c": 1e22, "d": 12345678901234567890.5}';
  expect(parseJson(text)).toEqual(JSON.parse(text));
  expect(hasLarge(parseJson(text))).toBe(false);
  expect(writeJson({ a: [1, "x"], b: undefined }, 2)).toBe(JSON.stringify({ a: [1, "x"] }, null, 2));
  expect(writeJson(undefined)).toBe(undefined);
});

test.each(["{", "[9007199254740993", "{9007199254740993}", "[1 9007199254740993]"])("%s is no JSON", (text) => {
  expect(() => parseJson(text)).toThrow(SyntaxError);
});

test("a whole number is a bigint only where it must be", () => {
  expect(wholeOf("9007199254740991")).toBe(9007199254740991);
  expect(wholeOf("9007199254740993")).toBe(9007199254740993n);
  expect(hasLarge({ a: [{ b: -9007199254740993n }] })).toBe(true);
});
