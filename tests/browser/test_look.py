"""Every page, at every width, in both themes and languages: nothing sticks out, and axe-core finds nothing."""

from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import Visit
from tests.browser.looks import (
    LOOKS,
    MOST_JUMPED,
    axe_core,
    findings,
    jumped,
    settled,
    sticks_out,
    watch_jumps,
    wrong_with,
)

# Each waits patiently: a machine that does much else is slow.
pytestmark = pytest.mark.timeout(900)

PAGES = (
    *("/ui/models", "/ui/models/flight-delay", "/ui/models/odd", "/ui/models/sentiment", "/ui/history", "/ui/balance"),
    *("/ui/keys", "/ui/webhooks", "/ui/telegram", "/ui/account", "/ui/nothing-here"),
)


@pytest.mark.parametrize(("width", "scheme", "locale"), LOOKS)
def test_every_page_is_whole(visit: Visit, web: Path, width: int, scheme: str, locale: str) -> None:
    axe = axe_core(web)
    visitor = visit(width=width, scheme=scheme, locale=locale)
    page = visitor.open("/")
    wrong = {}
    for path in ("/", "/ui/sign-in", "/ui/sign-up"):
        page.goto(visitor.url + path)
        settled(page)
        wrong[path] = wrong_with(page, axe)
    page.close()
    page = visitor.signed_up("/ui/models/flight-delay", by_form=True)
    page.locator("form.ask [role=group] button").first.click()
    page.locator("form.ask button[type=submit]").click()
    expect(page.locator(".result-label")).to_be_visible()
    wrong["an answer"] = findings(page, axe)
    page.goto(visitor.url + page.locator("section a[href^='/ui/predictions/']").get_attribute("href"))
    settled(page)
    wrong["a prediction"] = wrong_with(page, axe)
    for path in PAGES:
        page.goto(visitor.url + path)
        settled(page)
        wrong[path] = wrong_with(page, axe)
    assert {path: found for path, found in wrong.items() if found} == {}


@pytest.mark.parametrize("locale", ["en-US", "ru-RU"])
def test_no_page_is_wider_than_a_phone(visit: Visit, locale: str) -> None:
    visitor = visit(width=360, locale=locale)
    page = visitor.signed_up("/ui/models/odd")
    page.locator("form.ask [role=group] button").first.click()
    page.locator("form.ask button[type=submit]").click()
    expect(page.locator(".result-label")).to_be_visible()
    answered = page.url.removeprefix(visitor.url)
    its_page = page.locator("section a[href^='/ui/predictions/']").get_attribute("href")
    wide = {}
    for path in (*PAGES, answered, str(its_page), "/ui/history?status=foo", "/ui/models/%00"):
        page.goto(visitor.url + path)
        settled(page)
        for width in (360, 320):
            page.set_viewport_size({"width": width, "height": 800})
            if (by := sticks_out(page)) > 0:
                wide[path, width] = by
    assert wide == {}


@pytest.mark.parametrize(("width", "locale"), [(1280, "en-US"), (360, "ru-RU")])
def test_no_page_jumps_while_it_loads(visit: Visit, width: int, locale: str) -> None:
    visitor = visit(width=width, locale=locale)
    page = visitor.signed_up()
    watch_jumps(page)
    jumps = {}
    for path in ("/ui/", *PAGES):
        page.goto(visitor.url + path)
        settled(page)
        if (by := jumped(page)) > MOST_JUMPED:
            jumps[path] = by
    assert jumps == {}


def test_the_keyboard_alone_suffices(visit: Visit) -> None:
    visitor = visit()
    page = visitor.open("/ui/sign-up")
    expect(page.locator("input[name=username]")).to_be_visible()
    page.locator("input[name=username]").focus()
    page.keyboard.type(visitor.name)
    page.keyboard.press("Tab")
    page.keyboard.type("correct horse battery")
    page.keyboard.press("Enter")
    expect(page.locator("header .chip")).to_have_text("100 credits")
    page.goto(visitor.url + "/ui/models/odd")
    settled(page)
    page.keyboard.press("Tab")
    # The first stop leads past the navigation.
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Everything":
            break
    page.keyboard.press("Enter")
    page.locator("form.ask button[type=submit]").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".result-label")).to_have_text("Much")
    # Every stop can be seen.
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
