"""The operator's pages over a whole installation: what they show is what happened, and everybody can use them."""

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect
from tests.browser.conftest import CALM, PASSWORD, Visit, Visitor
from tests.browser.looks import LOOKS, MOST_JUMPED, axe_core, jumped, settled, watch_jumps, wrong_with
from tests.browser.odd_model import write_odd_model
from tests.browser.test_operator import promote
from tests.service_process import ServiceProcess, running_service
from tests.services_database import run_aside
from tests.services_system import Backends
from tests.system import FLIGHT, System

from foretell.broker.connect import connect
from foretell.contracts import queues

# Each waits patiently: a machine that does much else is slow.
pytestmark = pytest.mark.timeout(1200)

SECTIONS = (
    *("", "/workers", "/traffic", "/queues", "/drift", "/alerts", "/logs", "/users", "/models", "/predictions"),
    "/journal",
)
TOKEN = secrets.token_hex(16)
ROW = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}
ORDER = {"colour": "red", "count": 3, "sure": True, "at": "09:30", "day": "2026-01-31"}
#: Fires as soon as anything is heard, for as long as the module lasts.
RULES = """
[always_here]
metric = "foretell_queued_predictions"
below = 1000000
severity = "info"
[always_here.summary]
en = "This is a test."
ru = "Это проверка."
[always_here.action]
en = "Do nothing."
ru = "Ничего не делать."
"""


@pytest.fixture(scope="module")
def monitoring(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("monitoring")
    rules = folder / "rules.toml"
    rules.write_text(RULES, encoding="utf-8")
    with running_service(
        "monitoring",
        folder,
        FORETELL_MONITORING_TOKEN=TOKEN,
        FORETELL_BROKER_URL=backends.broker_url,
        FORETELL_ALERT_RULES=str(rules),
        FORETELL_MONITORING_DRIFT_EVERY_S="1",
    ) as service:
        yield service


@pytest.fixture(scope="module")
def product(
    web: Path, backends: Backends, monitoring: ServiceProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """A whole system with its monitoring service, and two versions of a model."""
    folder = tmp_path_factory.mktemp("system")
    models = folder / "own"
    for version in ("2.0.0", "2.1.0"):
        write_odd_model(models, version)
    system = backends.system(
        folder,
        **CALM,
        FORETELL_SIGNUPS_PER_ADDRESS="1000",
        FORETELL_MODELS_DIR=str(models),
        FORETELL_MONITORING_URL=monitoring.url,
        FORETELL_MONITORING_TOKEN=TOKEN,
    )
    try:
        run_aside(system.start(workers=2))
        run_aside(_leave_a_dead_letter(backends))
        yield system
    finally:
        run_aside(system.stop())


async def _leave_a_dead_letter(backends: Backends) -> None:
    broker = await connect(backends.broker_url, name="test")
    try:
        await broker.ensure_queue(queues.RESULTS)
        await broker.publish(queues.dead_queue(queues.RESULTS), b"garbage", message_id="m1")
    finally:
        await broker.close()


@pytest.fixture
def operator(visit: Visit, product: System) -> Callable[..., tuple[Visitor, Page]]:
    """Open a browser as an operator."""

    def open_browser(**look: Any) -> tuple[Visitor, Page]:
        visitor = visit(**look)
        page = visitor.signed_up()
        run_aside(promote(product, visitor.name))
        page.reload()
        return visitor, page

    return open_browser


Operator = Callable[..., tuple[Visitor, Page]]


def ask_as(visitor: Visitor, model: str, *inputs: dict[str, Any]) -> None:
    """Have predictions made with the account of a visitor, and wait for each."""
    form = {"username": visitor.name, "password": PASSWORD}
    with httpx.Client(base_url=visitor.url, timeout=120, trust_env=False) as client:
        token = client.post("/token", data=form).json()["access_token"]
        for given in inputs:
            answer = client.post(
                "/predictions/predict",
                json={"model": model, "input": given},
                headers={"Authorization": f"Bearer {token}", "Prefer": "wait=60"},
            )
            assert answer.json()["status"] == "succeeded", answer.text


@pytest.fixture(scope="module")
def drifted(product: System, monitoring: ServiceProcess, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A model service was asked the same again and again, which no reference is like."""
    told = {"FORETELL_MONITORING_URL": monitoring.url, "FORETELL_MONITORING_TOKEN": TOKEN}
    with running_service(
        "model", tmp_path_factory.mktemp("model"), **told, FORETELL_OBSERVED_ROWS_PER_S="2000"
    ) as model:
        asked = httpx.post(
            f"{model.url}/models/flight-delay/predict", json={"features": [ROW] * 900}, timeout=120, trust_env=False
        )
        assert asked.status_code == 200
        # It tells of them with its next heartbeat.
        token = {"Authorization": f"Bearer {TOKEN}"}
        while rows_seen(httpx.get(f"{monitoring.url}/reports/drift", headers=token, timeout=60, trust_env=False)) < 900:
            time.sleep(0.5)


def rows_seen(report: httpx.Response) -> int:
    """How many rows of the flight model the last look for drift counted, in its longest window."""
    versions = [each for each in report.json()["versions"] if each["model"] == "flight-delay"]
    return max((window["rows"] for each in versions for window in each["windows"]), default=0)


@pytest.mark.parametrize(("width", "scheme", "locale"), LOOKS)
def test_every_page_is_whole(
    operator: Operator, drifted: None, web: Path, width: int, scheme: str, locale: str
) -> None:
    axe = axe_core(web)
    visitor, page = operator(width=width, scheme=scheme, locale=locale)
    ask_as(visitor, "flight-delay", FLIGHT)
    wrong = {}
    for section in SECTIONS:
        page.goto(f"{visitor.url}/ui/operator{section}")
        settled(page)
        expect(page.locator("main [role=alert]")).to_have_count(0)
        wrong[section] = wrong_with(page, axe)
    page.goto(f"{visitor.url}/ui/operator/users")
    page.locator("td a").first.click()
    expect(page.locator("form")).to_have_count(2)
    wrong["a user"] = wrong_with(page, axe)
    page.goto(f"{visitor.url}/ui/operator/queues")
    page.locator("tr", has_text=queues.RESULTS).get_by_role("button").click()
    expect(page.get_by_role("table")).to_have_count(2)
    wrong["dead letters"] = wrong_with(page, axe)
    page.locator(".danger").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    wrong["a question"] = wrong_with(page, axe)
    assert {place: found for place, found in wrong.items() if found} == {}


def test_one_glance_says_whether_it_is_all_right(operator: Operator) -> None:
    visitor, page = operator()
    page.goto(visitor.url + "/ui/operator")
    services = page.get_by_role("group", name="Services")
    for service in ("app", "dispatcher", "ml_worker"):
        expect(services.get_by_role("row").filter(has_text=service)).to_contain_text("healthy")
    expect(page.locator(".figures")).to_contain_text("2")
    page.get_by_role("link", name="Workers", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="worker-")).to_have_count(2)


def test_on_a_phone_tables_are_read_without_scrolling_and_in_russian(operator: Operator, drifted: None) -> None:
    visitor, page = operator(width=360, locale="ru-RU")
    ask_as(visitor, "flight-delay", FLIGHT)
    scrolled = {}
    for section in SECTIONS:
        page.goto(f"{visitor.url}/ui/operator{section}")
        settled(page)
        scrolled[section] = page.locator(".table-frame, .table-frame td").evaluate_all(
            "places => places.filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.outerHTML)"
        )
        # The sections take one line, which shows that there are more, with the current one in sight.
        sections = page.locator("nav.sections")
        tops = sections.get_by_role("link").evaluate_all("links => links.map(link => link.offsetTop)")
        assert len(set(tops)) == 1
        expect(sections.locator("[aria-current]")).to_be_in_viewport(ratio=0.9)
    assert {section: found for section, found in scrolled.items() if found} == {}
    page.goto(f"{visitor.url}/ui/operator")
    expect(page.locator("main .notice")).to_contain_text("Это проверка.")
    services = page.get_by_role("group", name="Службы")
    expect(services.get_by_role("row").filter(has_text="dispatcher").locator(".chip")).to_have_text("работает")


@pytest.mark.parametrize(("width", "hidden"), [(1280, False), (700, True)])
def test_the_sections_take_one_line(operator: Operator, width: int, hidden: bool) -> None:
    visitor, page = operator(width=width, locale="ru-RU")
    page.goto(f"{visitor.url}/ui/operator/journal")
    sections = page.locator("nav.sections")
    expect(sections.locator("[aria-current]")).to_be_in_viewport(ratio=0.9)
    tops = sections.get_by_role("link").evaluate_all("links => links.map(link => link.offsetTop)")
    assert len(set(tops)) == 1
    assert (sections.evaluate("each => each.scrollWidth > each.clientWidth")) is hidden


def test_no_page_jumps_while_it_loads(operator: Operator) -> None:
    visitor, page = operator()
    watch_jumps(page)
    jumps = {}
    for section in SECTIONS:
        page.goto(f"{visitor.url}/ui/operator{section}")
        settled(page)
        if (by := jumped(page)) > MOST_JUMPED:
            jumps[section] = by
    assert jumps == {}


def test_what_is_wider_than_its_place_shows_that_there_is_more(operator: Operator) -> None:
    visitor, page = operator(width=700)
    ask_as(visitor, "flight-delay", FLIGHT)
    page.goto(f"{visitor.url}/ui/operator/predictions")
    frame = page.get_by_role("group", name="Predictions")
    expect(frame).to_have_attribute("data-more-right", "")
    expect(frame).not_to_have_attribute("data-more-left", "")
    expect(frame).not_to_have_css("box-shadow", "none")
    frame.evaluate("frame => frame.scrollTo(frame.scrollWidth, 0)")
    expect(frame).to_have_attribute("data-more-left", "")
    expect(frame).not_to_have_attribute("data-more-right", "")


def test_drift_stands_beside_the_reference(operator: Operator, drifted: None) -> None:
    visitor, page = operator()
    page.goto(visitor.url + "/ui/operator/drift")
    card = page.locator("section.card").filter(has=page.get_by_role("heading", name="flight-delay"))
    field = card.get_by_role("region", name="Input: carrier")
    expect(field.locator(".chip")).to_have_text("drifted")
    expect(field.get_by_role("img")).to_be_visible()
    field.get_by_text("As a table").click()
    only = field.get_by_role("row").filter(has=page.get_by_role("cell", name="AA", exact=True))
    # Nothing but this carrier was asked about.
    expect(only.get_by_role("cell").last).to_have_text("100%")


def test_why_there_is_nothing_to_compare_with_is_said_in_russian(operator: Operator) -> None:
    visitor, page = operator(width=360, locale="ru-RU")
    look = {"model": "odd", "computed_at": "2026-01-31T12:00:00Z", "status": "no_reference"}
    none = {**look, "version": "1.0.0", "reason": "The package has none.", "reason_code": "missing"}
    broken = {**look, "version": "2.0.0", "reason": "carrier has no bins", "reason_code": "broken"}
    report = {"windows_s": [3600], "versions": [none, broken]}
    page.route("**/admin/reports/drift", lambda route: route.fulfill(json=report))
    page.goto(visitor.url + "/ui/operator/drift")
    cards = page.locator("section.card")
    expect(cards.first).to_contain_text("В пакете нет reference.json: его создаёт команда foretell models reference.")
    expect(cards.first).not_to_contain_text("The package")
    expect(cards.last).to_contain_text("использовать нельзя")
    # What is wrong inside of a file is said in the words of what reads it.
    expect(cards.last.locator("[lang=en]")).to_have_text("carrier has no bins")


def test_a_canary_and_a_shadow_stand_beside_the_default(operator: Operator, product: System) -> None:
    visitor, page = operator()
    page.goto(visitor.url + "/ui/operator/models")
    card = page.locator("section.card").filter(has=page.get_by_role("heading", name="Odd one"))
    for version in ("2.0.0", "2.1.0"):
        slider = card.get_by_label(f"Share of the traffic, {version}")
        slider.fill("0.5")
    card.get_by_role("button", name="Save the traffic").click()
    expect(page.locator(".messages")).to_contain_text("it stands in the journal")
    ask_as(visitor, "odd", *[ORDER] * 12)
    card.get_by_text("Compare versions").click()
    table = card.get_by_role("group", name="Compare versions")
    expect(table.get_by_role("row")).to_have_count(3)
    for version in ("2.0.0", "2.1.0"):
        row = table.get_by_role("row").filter(has_text=version)
        # Five fields were given, which is a little; and none failed.
        expect(row.locator("[data-name=Label]")).to_have_text("Little 100%")
        expect(row.locator("[data-name=Failed]")).to_have_text("0%")
    for version, weight, shadow in (("2.0.0", "1", False), ("2.1.0", "0", True)):
        card.get_by_label(f"Share of the traffic, {version}").fill(weight)
        field = card.locator(".field").filter(has=page.get_by_label(f"Share of the traffic, {version}"))
        field.get_by_role("checkbox").set_checked(shadow)
    card.get_by_role("button", name="Save the traffic").click()
    expect(card.locator("code").first).to_contain_text("2.0.0")
    shadows = card.get_by_role("group", name="Shadow")

    def compared() -> bool:
        ask_as(visitor, "odd", ORDER)
        card.get_by_label("Span").select_option("1")
        card.get_by_label("Span").select_option("24")
        # Workers say every few seconds what they counted; credits are enough for twenty tries.
        page.wait_for_timeout(5000)
        return shadows.count() > 0

    wait_for(page, compared)
    expect(shadows.get_by_role("row").last.locator("[data-name='Same answer']")).to_contain_text("100%")


def wait_for(page: Page, condition: Callable[[], bool]) -> None:
    """Until it holds; the time-out of the test ends what never does."""
    while not condition():
        page.wait_for_timeout(500)


def test_an_alert_is_silenced_and_heard_again(operator: Operator) -> None:
    visitor, page = operator()
    page.goto(visitor.url + "/ui/operator/alerts")
    alert = page.locator("li.card").filter(has_text="always_here")
    expect(alert).to_contain_text("This is a test.")
    expect(alert).to_contain_text("Do nothing.")
    alert.get_by_label("For").select_option("1440")
    alert.get_by_role("button", name="Silence", exact=True).click()
    expect(alert).to_contain_text("Silenced until")
    alert.get_by_role("button", name="End the silence").click()
    expect(alert).not_to_contain_text("Silenced until")
    page.goto(visitor.url + "/ui/operator/journal")
    expect(page.get_by_role("row").filter(has_text="alert.silence")).to_have_count(2)


def test_logs_are_searched_and_followed(operator: Operator) -> None:
    visitor, page = operator()
    page.goto(visitor.url + "/ui/operator/logs")
    page.get_by_label("Follow").check()
    page.get_by_label("Search", exact=True).fill("signed_in")
    page.get_by_label("Service").select_option("app")
    page.get_by_role("button", name="Search").click()
    rows = page.get_by_role("log").get_by_role("row")
    page.get_by_label("Search", exact=True).fill("nothing has this in it")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("No line fits.")).to_be_visible()
    page.get_by_label("Search", exact=True).fill("")
    page.get_by_role("button", name="Search").click()
    signed_up = rows.filter(has_text="request_finished").filter(has_text="route=/users").first
    expect(signed_up).to_contain_text("method=POST")
    expect(signed_up).to_contain_text("status=201")
    expect(signed_up).to_contain_text("duration=")
    # With its seconds.
    assert signed_up.locator("time").inner_text().count(":") == 2


def test_throughput_and_latency_are_drawn_over_a_span(operator: Operator) -> None:
    visitor, page = operator()
    ask_as(visitor, "flight-delay", FLIGHT)
    page.goto(visitor.url + "/ui/operator/traffic")
    expect(page.locator(".plot canvas")).to_have_count(2)
    with page.expect_response(lambda answer: "/admin/reports/latency?window=5m" in answer.url):
        page.get_by_label("Span").select_option("5m")
    expect(page.get_by_role("row").filter(has_text="flight-delay 1.0.0").first).to_be_visible()


def test_the_keyboard_alone_suffices(operator: Operator) -> None:
    visitor, page = operator()
    page.goto(visitor.url + "/ui/operator")
    settled(page)

    def tab_to(text: str) -> None:
        """Press Tab until something with this text has the focus; it must be seen to have it."""
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent").strip() == text:
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
                return
        raise AssertionError(f"nobody gets to {text!r} by Tab")

    tab_to("Skip to content")
    page.keyboard.press("Enter")
    tab_to("Queues")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Queues")
    expect(page.get_by_role("button", name="Look").first).to_be_visible()
    tab_to("Look")
    page.keyboard.press("Enter")
    expect(page.locator("#dead")).to_be_visible()
    settled(page)
    if page.get_by_role("button", name="Discard all").count() == 0:
        tab_to("Look")
        page.keyboard.press("Enter")
        settled(page)
    tab_to("Discard all")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    # Back where they were.
    expect(page.get_by_role("button", name="Discard all")).to_be_focused()
