import { defineConfig } from "vite";
import { precompress } from "./precompress.ts";

// Where the app looks for it; `start.py` has it built elsewhere first and moves it there in one step.
const target = process.env["FORETELL_PAGE_BUILT"] ?? "../src/foretell/services/app/page/built";
// Where `npm run dev` finds the REST API.
const api = process.env["FORETELL_URL"] ?? "http://127.0.0.1:8000";
const calls = [
  "/about",
  "/admin",
  "/api-keys",
  "/balance",
  "/docs",
  "/events",
  "/health",
  "/models",
  "/openapi.json",
  "/predictions",
  "/session",
  "/telegram",
  "/token",
  "/transactions",
  "/usage",
  "/users",
  "/webhooks",
];

export default defineConfig({
  // Absolute, since the page has nested addresses: with a relative base they look for assets below themselves.
  base: "/ui/",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: target,
    emptyOutDir: true,
    target: "es2022",
    // The policy of the page allows no data in place of a file but for pictures.
    assetsInlineLimit: 0,
    // Small, and a part of the page that is loaded without a connection would come without its style later.
    cssCodeSplit: false,
    // Chunks are small and on the same host: a preload helper costs more than it brings.
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  plugins: [precompress()],
  server: { proxy: Object.fromEntries(calls.map((path) => [path, { target: api, changeOrigin: true }])) },
  test: { environment: "happy-dom", include: ["src/**/*.test.{ts,tsx}"] },
} as Parameters<typeof defineConfig>[0]);
