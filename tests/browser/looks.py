"""What every page must be: whole at every width, and without anything that axe-core finds."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Route, expect

#: Width, colours and language: together they show each page in both themes and languages, on a desktop and on phones.
LOOKS = [(1280, "light", "en-US"), (360, "dark", "ru-RU"), (320, "light", "ru-RU")]


def axe_core(web: Path) -> str:
    """The program that looks for what is wrong."""
    return (web / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def findings(page: Page, axe: str) -> list[str]:
    """What axe-core finds on the page as it is: WCAG 2.2, A and AA, and its best practices."""
    # Not as a script of the page, which its policy would refuse.
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


def sticks_out(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


#: Words of letters alone: an id or the name of a service may be broken anywhere.
_BROKEN_WORDS = r"""() => {
    const broken = [];
    const range = document.createRange();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text; text = texts.nextNode()) {
        const place = text.parentElement;
        if (!place.checkVisibility() || place.closest(".unseen, .pairs, code, pre, textarea, select")) continue;
        // Hidden from everybody but screen readers.
        if (place.getBoundingClientRect().width <= 1) continue;
        for (const { 0: word, index } of text.data.matchAll(/(?<![\p{L}\d_])\p{L}+(?![\p{L}\d_])/gu)) {
            range.setStart(text, index);
            range.setEnd(text, index + word.length);
            if (new Set([...range.getClientRects()].map((part) => Math.round(part.top))).size > 1) broken.push(word);
        }
    }
    return broken;
}"""


def broken_words(page: Page) -> list[str]:
    """Words that begin on one line and end on the next."""
    words: list[str] = page.evaluate(_BROKEN_WORDS)
    return words


#: But not in what is scrolled sideways in its place.
_OUT_OF_CARDS = """() => [...document.querySelectorAll(".card *, .table-frame *")]
    .filter((each) => !each.closest("svg, .unseen") && each.checkVisibility())
    .filter((each) => {
        const edge = each.parentElement.closest(".card, .table-frame, pre, .sideways");
        if (!edge.matches(".card, .table-frame")) return false;
        if (edge.matches(".sideways") && edge.scrollWidth > edge.clientWidth + 1) return false;
        return each.getBoundingClientRect().right > edge.getBoundingClientRect().right + 1;
    })
    .map((each) => each.outerHTML.slice(0, 200))"""


def out_of_cards(page: Page) -> list[str]:
    """What is wider than the card in which it is."""
    found: list[str] = page.evaluate(_OUT_OF_CARDS)
    return found


def wrong_with(page: Page, axe: str) -> list[str]:
    """Everything that is wrong with the look of the page as it is."""
    wrong = findings(page, axe) + (["it sticks out"] if sticks_out(page) > 0 else [])
    wrong += [f"a broken word: {word}" for word in broken_words(page)]
    return wrong + [f"out of its card: {place}" for place in out_of_cards(page)]


#: From how much a person calls it a jump: "good" of Cumulative Layout Shift.
MOST_JUMPED = 0.1
_WATCHING = """
window.jumps = [];
new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.jumps.push(entry.value);
}).observe({type: "layout-shift", buffered: true});
"""


def watch_jumps(page: Page) -> None:
    """Count what moves on the page from its next loading on; the API takes its time, so that placeholders are seen."""
    page.add_init_script(_WATCHING)

    def answer(route: Route) -> None:
        if route.request.resource_type == "fetch":
            page.wait_for_timeout(100)
        route.continue_()

    page.route(lambda url: "/assets/" not in url, answer)


def jumped(page: Page) -> float:
    """By how much the page has jumped: the sum of its layout shifts, from 0 to 1 for each."""
    # The browser tells of a shift after the frame with it.
    page.wait_for_timeout(200)
    return float(page.evaluate("window.jumps.reduce((sum, each) => sum + each, 0)"))


def settled(page: Page) -> None:
    """Return when everything that was asked for is there."""
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator(".waiting")).to_have_count(0)
