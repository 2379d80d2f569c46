"""The story of an operator."""

import pytest
from playwright.sync_api import expect
from tests.asides import run_aside
from tests.browser.conftest import Visit
from tests.system import System

from foretell.kit.database import Database

# Each waits patiently: a machine that does much else is slow.
pytestmark = pytest.mark.timeout(900)


async def promote(product: System, name: str) -> None:
    """Make somebody an operator, as the command line does."""
    database = Database(product.database_url)
    try:
        async with database.transaction() as connection:
            await connection.exec_driver_sql(f"UPDATE users SET role = 'operator' WHERE username = '{name}'")
    finally:
        await database.close()


def test_an_operator_finds_a_customer_and_grants_and_it_stands_in_the_journal(visit: Visit, product: System) -> None:
    customer = visit()
    customer.signed_up()
    operator = visit()
    page = operator.signed_up()
    run_aside(promote(product, operator.name))
    page.reload()
    page.get_by_role("link", name="Operator").click()
    # There is no monitoring service in this system: the page says so, and the rest works.
    expect(page.locator("h1")).to_have_text("At a glance")
    page.get_by_role("link", name="Users", exact=True).click()
    page.get_by_label("User name").fill(customer.name)
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=customer.name).click()
    page.get_by_label("Credits", exact=True).fill("50")
    page.get_by_label("Note").first.fill("for the story")
    page.get_by_role("button", name="Grant").click()
    expect(page.locator(".messages")).to_contain_text("it stands in the journal")
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("row").last).to_contain_text(operator.name)
    page.get_by_role("button", name="Block").click()
    page.get_by_role("dialog").get_by_role("button", name="Block").click()
    expect(page.locator(".chip", has_text="Blocked")).to_be_visible()
    page.get_by_role("button", name="Unblock").click()
    expect(page.locator(".chip", has_text="Active")).to_be_visible()
    for name in ("Models", "Predictions", "Journal"):
        page.get_by_role("navigation", name="Operator's pages").get_by_role("link", name=name).click()
        expect(page.locator("h1")).to_have_text(name)
        expect(page.locator(".waiting")).to_have_count(0)
        expect(page.locator("[role=alert]")).to_have_count(0)
    # The last act leads to the account it was about.
    page.get_by_role("row").nth(1).get_by_role("link").click()
    expect(page.locator("main h2").first).to_have_text(customer.name)


def test_what_is_no_number_changes_nothing(visit: Visit, product: System) -> None:
    visitor = visit()
    page = visitor.signed_up()
    run_aside(promote(product, visitor.name))
    page.goto(visitor.url + "/ui/operator/models")
    card = page.locator("section.card", has=page.get_by_role("heading", name="Flight delay"))
    price = card.get_by_label("Credits")
    price.fill("7")
    card.get_by_role("button", name="Save the price").click()
    expect(page.locator(".messages")).to_contain_text("it stands in the journal")
    page.reload()
    expect(price).to_have_value("7")
    for wrong in ("abc", "-1", "1e3"):
        price.fill(wrong)
        card.get_by_role("button", name="Save the price").click()
        assert price.evaluate("input => input.validity.patternMismatch")
    page.reload()
    expect(price).to_have_value("7")
    # There is nothing to divide between.
    expect(card).to_contain_text("All requests go to 1.0.0")
    expect(card.get_by_role("slider")).to_have_count(0)
    price.fill("")
    card.get_by_role("button", name="Save the price").click()
    expect(price).to_have_value("1")


def test_predictions_are_found_by_their_model(visit: Visit, product: System) -> None:
    visitor = visit()
    page = visitor.signed_up("/ui/models/flight-delay")
    page.locator("form.ask [role=group] button").first.click()
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".result-label")).to_be_visible()
    run_aside(promote(product, visitor.name))
    page.goto(visitor.url + "/ui/operator/predictions")
    rows = page.locator("tbody tr", has_text=visitor.name)
    expect(rows).to_have_count(1)
    page.get_by_label("Model").select_option("odd")
    expect(rows).to_have_count(0)
    page.get_by_label("Model").select_option("flight-delay")
    expect(rows).to_have_count(1)
