import { render } from "preact";
import { expect, test, vi } from "vitest";
import { LazyPlot } from "./lazy_plot";

const code = vi.hoisted(() => {
  let arrive: () => void = () => undefined;
  const arrived = new Promise<void>((done) => (arrive = done));
  return { arrive, arrived };
});
vi.mock("./plot", async () => {
  await code.arrived;
  return { default: ({ label }: { label: string }) => <p>{label}</p> };
});

function shown(label: string): HTMLElement {
  const place = document.createElement("div");
  document.body.append(place);
  render(<LazyPlot label={label} x={[]} series={[]} />, place);
  return place;
}

test("a plot that is drawn just before the code arrives gets it too", async () => {
  const first = shown("first");
  expect(first.querySelector(".waiting")).not.toBeNull();
  // Its effects have run, so that it waits for the code.
  await new Promise((done) => setTimeout(done, 100));
  const second = shown("second");
  code.arrive();
  await vi.waitFor(() => expect(first.textContent).toBe("first"));
  await vi.waitFor(() => expect(second.textContent).toBe("second"));
});
