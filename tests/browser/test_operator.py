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
