"""What people do without care: press twice, go back, reload while they wait, paste what nobody types."""

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import PASSWORD, Visit

# Each waits patiently: a machine that does much else is slow.
pytestmark = pytest.mark.timeout(900)


def test_pressing_twice_going_back_and_reloading_make_one_prediction(visit: Visit) -> None:
    visitor = visit()
    page = visitor.signed_up("/ui/models/flight-delay")
    page.get_by_role("button", name="A clear morning").click()
    page.get_by_role("button", name="Ask", exact=True).dblclick()
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
