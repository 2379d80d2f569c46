"""What people do without care: press twice, go back, reload while they wait, paste what nobody types."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect
from tests.browser.conftest import PASSWORD, Visit
from tests.browser.looks import broken_words, settled, sticks_out

# Each waits patiently: a machine that does much else is slow.
pytestmark = pytest.mark.timeout(900)


def double_click(button: Locator) -> None:
    # As slowly as people do it: the first click may be answered before the second.
    button.dblclick(delay=150)


def press_twice_at_once(button: Locator) -> None:
    # Two presses, each the first of its own for the browser.
    button.evaluate("button => { button.click(); button.click(); }")


@pytest.mark.parametrize("press", [double_click, press_twice_at_once])
def test_pressing_twice_going_back_and_reloading_make_one_prediction(
    visit: Visit, press: Callable[[Locator], None]
) -> None:
    visitor = visit()
    page = visitor.signed_up("/ui/models/flight-delay")
    page.get_by_role("button", name="A clear morning").click()
    press(page.get_by_role("button", name="Ask", exact=True))
    expect(page.locator(".result-label")).to_be_visible()
    answer = page.locator(".result-label").inner_text()
    expect(page.locator("header .chip")).to_have_text("99 credits")
    page.get_by_role("link", name="History", exact=True).click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.go_back()
    expect(page.locator(".result-label")).to_have_text(answer)
    page.reload()
    expect(page.locator(".result-label")).to_have_text(answer)
    page.go_forward()
    expect(page.locator("tbody tr")).to_have_count(1)


def test_what_nobody_types_is_taken_or_refused_at_its_field(visit: Visit) -> None:
    visitor = visit()
    page = visitor.signed_up("/ui/models/sentiment")
    text = page.get_by_label("Text", exact=True)
    ask = page.get_by_role("button", name="Ask", exact=True)
    for refused in ("x" * 100_000, "   \n ", ""):
        text.fill(refused)
        ask.click()
        expect(text).to_have_attribute("aria-invalid", "true")
        expect(text).to_be_focused()
    for taken in (
        "I \N{GRINNING FACE} it \N{ZERO WIDTH JOINER}\N{RIGHT-TO-LEFT OVERRIDE}",
        "a\0b",
        "<script>alert(1)</script>",
    ):
        text.fill(taken)
        ask.click()
        expect(page.locator(".result-label, form.ask .wrong").first).to_be_visible()
        expect(ask).to_have_attribute("aria-busy", "false")


def test_a_wrong_password_keeps_the_name_and_says_so(visit: Visit) -> None:
    visitor = visit(locale="ru-RU")
    page = visitor.open("/ui/sign-in")
    page.locator("input[name=username]").fill(visitor.name)
    page.locator("input[name=password]").fill(PASSWORD + "!")
    page.keyboard.press("Enter")
    expect(page.locator("form [role=alert]")).to_have_text("Неверное имя пользователя или пароль.")
    expect(page.locator("input[name=username]")).to_have_value(visitor.name)


def test_a_name_that_can_t_be_or_is_taken_is_refused_at_its_field(visit: Visit) -> None:
    first = visit()
    first.signed_up()
    page = visit().open("/ui/sign-up")
    name = page.locator("input[name=username]")
    page.locator("input[name=password]").fill(PASSWORD)
    for refused, why in (("a b!", "A user name has 3 to 64 characters"), (first.name, "is taken")):
        name.fill(refused)
        page.keyboard.press("Enter")
        expect(page.locator(".field", has=name).locator(".wrong")).to_contain_text(why)
        expect(name).to_have_attribute("aria-invalid", "true")
        expect(name).to_be_focused()


def test_what_was_typed_is_there_after_signing_up_and_after_a_look_elsewhere(visit: Visit) -> None:
    visitor = visit()
    page = visitor.open("/ui/models/sentiment")
    text = page.get_by_label("Text", exact=True)
    text.fill("Before there was an account")
    page.locator("form.ask a.main-action").click()
    page.locator("main").get_by_role("link", name="Sign up").click()
    page.locator("input[name=username]").fill(visitor.name)
    page.locator("input[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(text).to_have_value("Before there was an account")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".result-label")).to_be_visible()
    text.fill("After the answer")
    page.get_by_role("link", name="Balance", exact=True).click()
    expect(page.locator("h1")).to_have_text("Balance")
    page.go_back()
    expect(text).to_have_value("After the answer")
    # What one person typed is not for the next.
    page.goto(visitor.url + "/ui/models/sentiment")
    text.fill("A secret")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("link", name="Sign in").first).to_be_visible()
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_role("link", name="Try it: Sentiment").click()
    expect(text).to_have_value("")


def test_a_page_that_is_opened_without_a_connection_comes_with_the_connection(visit: Visit) -> None:
    visitor = visit()
    page = visitor.signed_up("/ui/models/sentiment")
    page.evaluate("window.isTheSame = true")
    visitor.context.set_offline(True)
    # Its code is not here yet.
    page.get_by_role("link", name="History", exact=True).click()
    expect(page.locator(".banner")).to_be_visible()
    expect(page).to_have_url(visitor.url + "/ui/history")
    page.locator("footer").get_by_label("Language").select_option("ru")
    # It is said before the connection is back; otherwise the page may be Russian.
    expect(page.locator(".messages")).not_to_have_text("")
    visitor.context.set_offline(False)
    expect(page.locator("h1")).to_have_text("History")
    expect(page.locator(".banner")).to_have_count(0)
    assert page.evaluate("window.isTheSame")


def test_a_session_that_ends_while_a_form_is_sent_is_not_the_form_s_mistake(visit: Visit) -> None:
    visitor = visit()
    page = visitor.signed_up("/ui/balance")
    threshold = page.get_by_label("Tell me below")
    threshold.fill("50")
    visitor.context.clear_cookies()
    page.get_by_role("button", name="Save").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    expect(page.locator("main .wrong")).to_have_count(0)
    dialog.locator("input[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(threshold).to_have_value("50")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".messages")).to_contain_text("50")


@pytest.mark.parametrize("width", [360, 320])
def test_a_history_is_read_on_a_phone(visit: Visit, width: int) -> None:
    visitor = visit(width=width, locale="ru-RU")
    page = visitor.signed_up("/ui/models/sentiment")
    page.locator("form.ask [role=group] button").first.click()
    page.locator("form.ask button[type=submit]").click()
    expect(page.locator(".result-label")).to_be_visible()
    page.goto(visitor.url + "/ui/history")
    settled(page)
    expect(page.locator("td a").first).to_have_text("Тональность текста")
    assert broken_words(page) == []
    assert sticks_out(page) <= 0
    cells = page.locator("tbody td").evaluate_all(
        "cells => cells.map(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth)"
    )
    assert max(cells) <= 1
    # Signing out is where everything else is.
    page.get_by_role("button", name="Меню").click()
    page.get_by_role("button", name="Выйти").click()
    expect(page.locator("h1")).to_have_text("Вход")


def test_a_refused_download_leaves_its_button_where_it_is(visit: Visit) -> None:
    page = visit().signed_up("/ui/history")
    page.route("**/predictions.csv", lambda route: route.fulfill(status=500, json={"detail": "It is " + "long " * 30}))
    button = page.get_by_role("button", name="Download CSV")
    before = _right_and_top(page)
    button.click()
    refused = page.locator(".page-title [role=alert]")
    expect(refused).to_be_visible()
    assert _right_and_top(page) == before
    place, told = button.bounding_box(), refused.bounding_box()
    assert place is not None
    assert told is not None
    assert told["y"] >= place["y"] + place["height"]


def _right_and_top(page: Page) -> tuple[int, int]:
    box = page.get_by_role("button", name="Download CSV").bounding_box()
    assert box is not None
    return round(box["x"] + box["width"]), round(box["y"])
