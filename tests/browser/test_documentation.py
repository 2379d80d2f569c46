"""`/docs` in a real browser."""

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import Visit

# It waits patiently: a machine that does much else is slow.
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("width", [360, 1280])
def test_the_authorize_dialog_opens_at_its_first_field(visit: Visit, width: int) -> None:
    page = visit(width=width).open("/docs")
    first = page.locator("#oauth_username")
    for _ in range(2):
        page.locator(".scheme-container button.authorize").click()
        expect(first).to_be_focused()
        expect(first).to_be_in_viewport()
        expect(page.locator(".modal-ux h4").first).to_be_in_viewport(ratio=1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator(".modal-ux .close-modal").click()
        expect(first).not_to_be_attached()


def test_typing_in_the_authorize_dialog_keeps_the_focus_where_it_is(visit: Visit) -> None:
    page = visit().open("/docs")
    page.locator(".scheme-container button.authorize").click()
    key = page.locator("#api_key_value").first
    key.press_sequentially("fk_abc")
    expect(key).to_have_value("fk_abc")
    expect(key).to_be_focused()
