"""What of an account is used outside of the page: webhooks, chats of Telegram, files."""

import csv
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Route, expect
from tests.browser.conftest import CALM, Visit
from tests.browser.looks import out_of_cards, sticks_out
from tests.services_database import run_aside
from tests.services_system import Backends
from tests.system import System

from foretell.domain.accounts import telegram
from foretell.kit.database import Database

# Each waits patiently: a machine that does much else is slow.
pytestmark = pytest.mark.timeout(900)

BOT = "foretell_test_bot"


@pytest.fixture(scope="module")
def product(web: Path, backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that may send webhooks to this machine, and knows a bot by its name."""
    system = backends.system(
        tmp_path_factory.mktemp("system"),
        **CALM,
        FORETELL_SIGNUPS_PER_ADDRESS="1000",
        FORETELL_WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8",
        FORETELL_TELEGRAM_BOT_NAME=BOT,
        # The next one only after a minute: what is refused stays refused however slow this machine is.
        FORETELL_EXPORTS_PER_MINUTE="1",
    )
    try:
        run_aside(system.start(workers=1))
        yield system
    finally:
        run_aside(system.stop())


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[Any]]]:
    """A receiver of webhooks: its address, and the bodies that came."""
    came: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", came
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_is_made_tested_told_and_removed(visit: Visit, receiver: tuple[str, list[Any]]) -> None:
    url, came = receiver
    visitor = visit()
    page = visitor.signed_up("/ui/webhooks")
    expect(page.get_by_text("There is no webhook yet.")).to_be_visible()
    page.get_by_label("Address").fill("ftp://example.com")
    page.get_by_role("button", name="Make a webhook").click()
    expect(page.locator("form .wrong")).not_to_have_count(0)
    page.get_by_label("Address").fill(url)
    page.get_by_role("button", name="Make a webhook").click()
    expect(page.locator(".notice code")).to_contain_text("whsec_")
    page.get_by_role("link", name=url).click()
    page.get_by_role("button", name="Send a test").click()
    deliveries = page.get_by_role("group", name="Deliveries")
    # It appears by itself.
    expect(deliveries.get_by_role("row").filter(has_text="webhook.test")).to_contain_text("Delivered")
    asking = visitor.open("/ui/models/flight-delay")
    asking.get_by_role("button", name="A clear morning").click()
    asking.get_by_role("button", name="Ask", exact=True).click()
    expect(asking.locator(".result-label")).to_be_visible()
    finished = deliveries.get_by_role("row").filter(has_text="prediction.finished")
    expect(finished).to_have_count(1)
    finished.get_by_role("button", name="Send again").click()
    expect(finished).to_have_count(2)
    assert [each["type"] for each in came].count("prediction.finished") == 2
    page.get_by_role("button", name="New secret").click()
    expect(page.locator(".notice code")).to_contain_text("whsec_")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Turn on")).to_be_visible()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("There is no webhook yet.")).to_be_visible()


async def _link(product: System, code: str) -> None:
    """What the bot does with a code that somebody sends it."""
    database = Database(product.database_url)
    try:
        async with database.transaction() as connection:
            await telegram.link(connection, 4711, code, name="Ada's phone")
    finally:
        await database.close()


def test_a_chat_is_linked_by_button_or_qr_code_and_unlinked(visit: Visit, product: System) -> None:
    page = visit().signed_up("/ui/telegram")
    page.get_by_role("button", name="Link a chat").click()
    address = page.get_by_role("link", name="Open in Telegram").get_attribute("href")
    assert address is not None
    assert address.startswith(f"https://t.me/{BOT}?start=")
    code = address.rpartition("=")[2]
    expect(page.get_by_text(f"/start {code}")).to_be_visible()
    # Dark modules and light ones: a code, and no empty frame.
    assert page.get_by_role("img", name="QR code of the link").locator("path").get_attribute("d").count("M") > 100
    run_aside(_link(product, code))
    # It appears by itself.
    expect(page.get_by_text("The chat is linked.")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="Ada's phone")).to_be_visible()
    page.get_by_role("button", name="Unlink").click()
    page.get_by_role("dialog").get_by_role("button", name="Unlink").click()
    expect(page.get_by_role("listitem").filter(has_text="Ada's phone")).to_have_count(0)


def test_the_link_of_a_chat_fits_on_a_phone(visit: Visit) -> None:
    page = visit(width=320, locale="ru-RU").signed_up("/ui/telegram")
    page.get_by_role("button", name="Связать чат").click()
    expect(page.get_by_role("link", name="Открыть в Telegram")).to_be_visible()
    for width in (320, 360, 480):
        page.set_viewport_size({"width": width, "height": 800})
        assert out_of_cards(page) == []
        assert sticks_out(page) <= 0


def test_a_history_is_taken_along_as_a_table_that_runs_no_formula(visit: Visit) -> None:
    visitor = visit()
    page = visitor.signed_up("/ui/models/flight-delay")
    page.get_by_role("button", name="A clear morning").click()
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".result-label")).to_be_visible()
    page.goto(visitor.url + "/ui/history?status=succeeded")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["model"], row["status"], row["price"]) == ("flight-delay", "succeeded", "1")
    assert json.loads(row["output"])["prediction"] in (0, 1)
    assert not any(cell.startswith(("=", "+", "@", "\t")) for cell in row.values())
    # Of a filter that there is not, there is no file: the page says what is wrong with it.
    page.goto(visitor.url + "/ui/history?status=foo")
    expect(page.locator("main [role=alert]")).to_contain_text("there is no “foo”")
    expect(page.get_by_role("button", name="Download CSV")).to_have_count(0)


def test_a_download_that_is_refused_is_explained_on_the_page(visit: Visit) -> None:
    visitor = visit(locale="ru-RU")
    page = visitor.signed_up("/ui/history")
    assert page.request.get(visitor.url + "/predictions.csv").status == 200
    page.get_by_text("Скачать CSV").click()
    expect(page.locator("main [role=alert]")).to_contain_text("Слишком много попыток")
    visitor.context.set_offline(True)
    page.get_by_text("Скачать CSV").click()
    expect(page.locator(".banner")).to_be_visible()
    visitor.context.set_offline(False)
    expect(page.locator(".banner")).to_have_count(0)

    def end_the_session(route: Route) -> None:
        visitor.context.clear_cookies()
        route.continue_()

    # With the download and not before it: the page reads its list again after it was away, and would notice first.
    page.route("**/predictions.csv", end_the_session)
    with page.expect_response("**/predictions.csv") as refused:
        page.get_by_text("Скачать CSV").click()
    assert refused.value.status == 401
    expect(page.get_by_role("dialog")).to_contain_text("Сеанс")
    # What was refused does not take the button away.
    expect(page.get_by_text("Скачать CSV")).to_have_count(1)
