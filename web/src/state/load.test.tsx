import { render } from "preact";
import { act } from "preact/test-utils";
import { expect, test } from "vitest";
import { useLoad } from "./load";

test("a new mark loads again and keeps what is shown; another key shows nothing of the one before", async () => {
  const answers: ((text: string) => void)[] = [];
  const load = (): Promise<string> => new Promise((done) => answers.push(done));
  const Shown = ({ name, mark }: { name: string; mark: string }) => <p>{useLoad(name, load, mark).data ?? "…"}</p>;
  const place = document.createElement("div");
  const show = (name: string, mark: string): Promise<void> =>
    act(() => {
      render(<Shown name={name} mark={mark} />, place);
    });
  const answer = (text: string): Promise<void> =>
    act(async () => {
      answers.at(-1)?.(text);
      await Promise.resolve();
    });

  await show("balance", "100");
  expect(place.textContent).toBe("…");
  await answer("first");
  expect(place.textContent).toBe("first");
  await show("balance", "99");
  expect(answers.length).toBe(2);
  expect(place.textContent).toBe("first");
  await answer("second");
  expect(place.textContent).toBe("second");
  await show("other", "99");
  expect(place.textContent).toBe("…");
});

test("a reload while it loads gives up nothing: the answer is shown, and it loads once more", async () => {
  const answers: ((text: string) => void)[] = [];
  let aborted = 0;
  const load = (signal: AbortSignal): Promise<string> => {
    signal.addEventListener("abort", () => (aborted += 1));
    return new Promise((done) => answers.push(done));
  };
  let reload = (): void => undefined;
  const Shown = () => {
    const loaded = useLoad("list", load);
    reload = loaded.reload;
    return <p>{loaded.data ?? "…"}</p>;
  };
  const place = document.createElement("div");
  await act(() => render(<Shown />, place));
  await act(() => {
    for (let each = 0; each < 10; each += 1) reload();
  });
  expect([answers.length, aborted]).toEqual([1, 0]);
  await act(async () => {
    answers[0]?.("first");
    await Promise.resolve();
  });
  expect(place.textContent).toBe("first");
  expect(answers.length).toBe(2);
  await act(async () => {
    answers[1]?.("second");
    await Promise.resolve();
  });
  expect(place.textContent).toBe("second");
  expect(answers.length).toBe(2);
});
