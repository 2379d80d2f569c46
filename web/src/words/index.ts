import { loadCode } from "../state/code";
import { makeStore, useStore } from "../state/store";
import type { en } from "./en";

export type Language = "en" | "ru";
export const LANGUAGES: readonly Language[] = ["en", "ru"];
export type Key = keyof typeof en;
/** A text with `{name}` for values, or one text for each plural form of `n`. */
export type Text = string | Partial<Record<Intl.LDMLPluralRule, string>>;
export type Catalogue = Readonly<Record<Key, Text>>;
export type Values = Readonly<Record<string, string | number>>;

/** A text of a model, in both languages. */
export interface Words {
  en: string;
  ru: string;
}

const KEPT_AS = "foretell-language";
const current = makeStore<{ language: Language; texts: Record<string, Text> }>({ language: "en", texts: {} });

export function isLanguage(value: unknown): value is Language {
  return value === "en" || value === "ru";
}

/** The language chosen in this browser, else the browser's own. */
export function languageOfBrowser(): Language {
  const kept = keptAs(KEPT_AS);
  if (isLanguage(kept)) return kept;
  return navigator.languages.some((name) => name.toLowerCase().startsWith("ru")) ? "ru" : "en";
}

/** Changes the language of the page. Throws the same as `loadCode`, and then it stays as it was. */
export async function speak(language: Language): Promise<void> {
  const texts = await loadCode(async () => (language === "ru" ? (await import("./ru")).ru : (await import("./en")).en));
  try {
    localStorage.setItem(KEPT_AS, language);
  } catch {
    // Without storage, the choice is lost at the next load.
  }
  document.documentElement.lang = language;
  current.set({ language, texts: { ...more[language], ...texts } });
}

const more: Record<Language, Record<string, Text>> = { en: {}, ru: {} };

/** Adds the texts of a part of the page that is loaded on demand. */
export function addWords(words: Record<Language, Record<string, Text>>): void {
  for (const language of LANGUAGES) Object.assign(more[language], words[language]);
  const now = current.get();
  current.set({ language: now.language, texts: { ...more[now.language], ...now.texts } });
}

export function language(): Language {
  return current.get().language;
}

/** The language of the page; renders again when it changes. */
export function useLanguage(): Language {
  return useStore(current).language;
}

/** A text of the page. The value `n` chooses the plural form; numbers are formatted. */
export function t(key: Key, values: Values = {}): string {
  return textOf(key, values);
}

/** The same for a key that the compiler does not know: one from `addWords`, or made from a code of the API. */
export function textOf(key: string, values: Values = {}, otherwise = key): string {
  const text = current.get().texts[key];
  if (text === undefined) return otherwise;
  const chosen = typeof text === "string" ? text : (text[formOf(Number(values["n"] ?? 0))] ?? text.other ?? key);
  return chosen.replace(/\{(\w+)\}/g, (whole, name: string) => {
    const value = values[name];
    return value === undefined ? whole : typeof value === "string" ? value : formatNumber(value);
  });
}

export function hasText(key: string): boolean {
  return key in current.get().texts;
}

function formOf(n: number): Intl.LDMLPluralRule {
  return new Intl.PluralRules(language()).select(n);
}

/** A text of a model, in the language of the page. */
export function said(words: Words | null | undefined): string {
  return words ? words[language()] : "";
}

const numberFormats = new Map<string, Intl.NumberFormat>();
const dateFormats = new Map<string, Intl.DateTimeFormat>();

/** Cached, because creating a format is a hundred times slower than using it. */
function numberFormat(options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const key = language() + JSON.stringify(options);
  const made = numberFormats.get(key) ?? new Intl.NumberFormat(language(), options);
  numberFormats.set(key, made);
  return made;
}

function dateFormat(options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = language() + JSON.stringify(options);
  const made = dateFormats.get(key) ?? new Intl.DateTimeFormat(language(), options);
  dateFormats.set(key, made);
  return made;
}

export function formatNumber(value: number | bigint, digits?: number): string {
  return numberFormat({ maximumFractionDigits: digits ?? 6, minimumFractionDigits: digits ?? 0 }).format(value);
}

export function formatPercent(value: number): string {
  return numberFormat({ style: "percent", maximumFractionDigits: 1 }).format(value);
}

/** A time from the API, in the reader's time zone. */
export function formatMoment(iso: string, exact = false): string {
  return dateFormat({ dateStyle: "medium", timeStyle: exact ? "medium" : "short" }).format(new Date(iso));
}

/** The same with seconds and without the year. */
export function formatSecond(iso: string): string {
  const time = { hour: "2-digit", minute: "2-digit", second: "2-digit" } as const;
  return dateFormat({ day: "numeric", month: "short", ...time }).format(new Date(iso));
}

export function formatDay(iso: string): string {
  return dateFormat({ day: "numeric", month: "short", timeZone: "UTC" }).format(new Date(iso));
}

/** A tick of a time axis, from seconds since 1970: the time of day, or the date if `step` is a day or more. */
export function formatTick(seconds: number, step: number): string {
  const options: Intl.DateTimeFormatOptions =
    step >= 86_400 ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit" };
  return dateFormat(options).format(new Date(seconds * 1000));
}

/** A duration in short form: 4 ms, 1.3 s, 5 min, 2 h. */
export function formatSeconds(seconds: number): string {
  const [value, unit]: [number, string] =
    seconds < 1
      ? [Math.round(seconds * 1000), "millisecond"]
      : seconds < 100
        ? [Number(seconds.toFixed(1)), "second"]
        : seconds < 6000
          ? [Math.round(seconds / 60), "minute"]
          : seconds < 48 * 3600
            ? [Math.round(seconds / 3600), "hour"]
            : [Math.round(seconds / 86400), "day"];
  return numberFormat({ style: "unit", unit, unitDisplay: "short" }).format(value);
}

/** A size: 512 byte, 3.1 kB, 120 MB. */
export function formatBytes(bytes: number): string {
  const [value, unit]: [number, string] =
    bytes < 1e3 ? [bytes, "byte"] : bytes < 1e6 ? [bytes / 1e3, "kilobyte"] : [bytes / 1e6, "megabyte"];
  const maximumFractionDigits = value < 10 ? 1 : 0;
  return numberFormat({ style: "unit", unit, unitDisplay: "short", maximumFractionDigits }).format(value);
}

/** "5 minutes ago", "in 10 seconds". */
export function formatAgo(iso: string, now = Date.now()): string {
  const seconds = (new Date(iso).getTime() - now) / 1000;
  const size = Math.abs(seconds);
  const [value, unit]: [number, Intl.RelativeTimeFormatUnit] =
    size < 60
      ? [seconds, "second"]
      : size < 3600
        ? [seconds / 60, "minute"]
        : size < 86400
          ? [seconds / 3600, "hour"]
          : [seconds / 86400, "day"];
  return new Intl.RelativeTimeFormat(language(), { numeric: "auto" }).format(Math.round(value), unit);
}

function keptAs(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}
