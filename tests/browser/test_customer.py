"""The stories of a new user and of a customer, and what happens when things break meanwhile."""

import json
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect
from tests.asides import run_aside
from tests.browser.conftest import PASSWORD, Visit
from tests.system import System

# Each waits patiently: a machine that does much else is slow.
pytestmark = pytest.mark.timeout(900)


def ask(page: Page) -> None:
    page.get_by_role("button", name="Ask", exact=True).click()


def result(page: Page) -> Any:
    return page.locator(".result-label")


@pytest.fixture
def no_worker(product: System) -> Any:
    """Nothing is carried out until the test says so."""
    run_aside(product.end(product.alive("worker")))
    yield lambda: run_aside(product.heal())
    product.wanted = {"app": 1, "dispatcher": 1, "worker": 1}
    run_aside(product.heal())


def test_a_new_user_signs_up_asks_and_sees_what_it_cost(visit: Visit) -> None:
    visitor = visit()
    page = visitor.open("/")
    page.get_by_role("link", name="Sign up").first.click()
    page.locator("input[name=username]").fill(visitor.name)
    page.locator("input[name=password]").fill("short")
    page.locator("form button[type=submit]").click()
    # The browser itself asks for more; nothing was sent.
    expect(page).to_have_url(re.compile("/ui/sign-up$"))
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("form button[type=submit]").click()
    expect(page.locator("header .chip")).to_have_text("100 credits")

    page.get_by_role("link", name="Flight delay", exact=True).click()
    ask(page)
    expect(page.locator(".wrong")).to_have_count(4)
    expect(page.get_by_label("Carrier")).to_be_focused()
    page.get_by_role("button", name="A thunderstorm in the evening").click()
    expect(page.locator(".wrong")).to_have_count(0)
    expect(page.locator("form.ask")).to_contain_text("Costs 1 credit. Leaves you 99.")
    ask(page)
    expect(result(page)).to_have_text("Delayed")
    expect(page.get_by_role("img", name="Probability of a delay: 73.5%")).to_be_visible()
    expect(page.locator("header .chip")).to_have_text("99 credits")
    # Screen readers are told.
    expect(page.locator("section [role=status].unseen")).to_have_text("Result: Delayed")

    page.reload()
    expect(result(page)).to_have_text("Delayed")
    expect(page.get_by_label("Carrier")).to_have_value("5")
    page.get_by_role("link", name="Its page").click()
    expect(page).to_have_url(re.compile("/ui/predictions/[0-9a-f-]{36}$"))
    expect(page.locator("pre").first).to_contain_text('"weather_code": 4')
    address = page.url
    page.goto(visitor.url + "/ui/balance")
    charged = page.get_by_role("link", name="Charged")
    expect(charged).to_have_count(1)
    charged.click()
    expect(page).to_have_url(address)
    page.get_by_role("link", name="Ask again with a change").click()
    expect(page.locator("form.ask input[inputmode=decimal]")).to_have_value("229")

    page.get_by_role("button", name="Sign out").first.click()
    expect(page.locator("header .chip")).to_have_count(0)
    page.goto(address)
    expect(page).to_have_url(re.compile(r"/ui/sign-in\?next="))
    page.locator("input[name=username]").fill(visitor.name)
    page.locator("input[name=password]").fill("wrong" + PASSWORD)
    page.locator("form button[type=submit]").click()
    expect(page.locator("form .wrong")).to_have_text("The user name or the password is wrong.")
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("form button[type=submit]").click()
    # Back to where they wanted to go.
    expect(page).to_have_url(address)
    expect(result(page)).to_have_text("Delayed")


def test_somebody_else_s_prediction_is_not_there(visit: Visit) -> None:
    mine = visit()
    page = mine.signed_up("/ui/models/flight-delay")
    page.get_by_role("button", name="A clear morning").click()
    ask(page)
    expect(result(page)).to_have_text("On time")
    page.get_by_role("link", name="Its page").click()
    expect(page).to_have_url(re.compile("/ui/predictions/"))
    other = visit().signed_up(page.url.removeprefix(mine.url))
    expect(other.locator("[role=alert]")).to_contain_text("There is no such prediction.")
    other.goto(mine.url + "/ui/operator/users")
    expect(other.locator("h1")).to_have_text("Not found")


def test_a_model_nobody_wrote_a_line_for(visit: Visit) -> None:
    page = visit(locale="ru-RU").signed_up("/ui/models/odd")
    expect(page.locator("h1")).to_have_text("Странная")
    page.get_by_role("button", name="Всё", exact=True).click()
    page.get_by_role("button", name="Спросить", exact=True).click()
    expect(result(page)).to_have_text("Много")
    expect(page.get_by_role("list", name="Все классы")).to_contain_text("75")
    expect(page.locator("header .chip")).to_have_text("97 кредитов")
    # What is wrong deep inside stands at its field.
    page.get_by_label("Kg", exact=True).fill("31")
    page.get_by_role("button", name="Спросить", exact=True).click()
    expect(page.locator(".wrong")).to_have_text("Не больше 30")
    expect(page.get_by_label("Kg", exact=True)).to_be_focused()


def test_what_the_api_finds_wrong_stands_at_its_field(visit: Visit) -> None:
    page = visit().signed_up("/ui/models/odd")
    page.get_by_role("button", name="Everything", exact=True).click()
    page.get_by_role("button", name="JSON", exact=True).click()
    text = page.get_by_label("JSON", exact=True)
    value = json.loads(text.input_value())
    value["count"] = 99
    text.fill(json.dumps(value))
    ask(page)
    page.get_by_role("button", name="Form", exact=True).click()
    field = page.locator(".field", has=page.get_by_label("Count", exact=True))
    expect(field.locator(".wrong")).to_contain_text("10")
    expect(page.get_by_label("Count", exact=True)).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Count", exact=True).fill("9")
    ask(page)
    expect(result(page)).to_have_text("Much")


def test_what_is_wrong_in_json_is_listed_below_it(visit: Visit) -> None:
    page = visit().signed_up("/ui/models/odd")
    page.get_by_role("button", name="Everything", exact=True).click()
    page.get_by_role("button", name="JSON", exact=True).click()
    text = page.get_by_label("JSON", exact=True)
    value = json.loads(text.input_value())
    text.fill(json.dumps({**value, "colour": "mauve", "count": 99, "bag": {"kg": "heavy"}}))
    # The programs ask with what was typed, and with nothing while that is no JSON.
    expect(page.locator("pre")).to_contain_text('"colour": "mauve"')
    ask(page)
    wrongs = page.locator("form.ask .refusals li")
    expect(wrongs.filter(has_text="colour")).to_have_count(1)
    expect(wrongs.filter(has_text="count")).to_contain_text("10")
    expect(wrongs.filter(has_text="bag/kg")).to_have_count(1)
    expect(text).to_be_focused()
    page.get_by_label("Language").select_option("ru")
    expect(wrongs.filter(has_text="count")).to_have_text("count: Не больше 10")
    expect(wrongs.filter(has_text="colour")).to_have_text("colour: Такого варианта нет.")
    expect(wrongs.filter(has_text="bag/kg")).to_have_text("bag/kg: Это не число.")
    text.fill("{")
    expect(wrongs).to_have_count(0)
    expect(page.locator("pre")).to_have_count(0)
    # What is no JSON is not thrown away by a look at the form.
    page.get_by_role("button", name="Форма", exact=True).click()
    expect(text).to_have_value("{")
    expect(page.locator("form.ask [role=alert]")).to_contain_text("Это не JSON")


def test_large_whole_numbers_stay_as_they_are(visit: Visit) -> None:
    large = "9007199254740993"
    page = visit().signed_up("/ui/models/odd")
    page.get_by_role("button", name="Everything", exact=True).click()
    page.get_by_label("More").fill(f'{{"id": {large}}}')
    expect(page.locator("pre")).to_contain_text(f'"id": {large}')
    with page.expect_request("**/predictions/predict") as sent:
        ask(page)
    assert f'"id":{large}' in str(sent.value.post_data)
    expect(result(page)).to_have_text("Much")
    page.get_by_role("link", name="Its page").click()
    expect(page.locator("pre").first).to_contain_text(f'"id": {large}')
    page.get_by_role("link", name="Ask again with a change").click()
    expect(page.get_by_label("More")).to_have_value(re.compile(large))
    page.get_by_role("button", name="JSON", exact=True).click()
    text = page.get_by_label("JSON", exact=True)
    expect(text).to_have_value(re.compile(f'"id": {large}'))
    text.fill(text.input_value().replace(large, "9007199254740995"))
    page.get_by_role("button", name="Form", exact=True).click()
    expect(page.get_by_label("More")).to_have_value(re.compile("9007199254740995"))


def test_two_tabs_show_the_same_truth_and_share_one_stream(visit: Visit, no_worker: Any) -> None:
    visitor = visit()
    first = visitor.signed_up("/ui/history")
    second = visitor.open("/ui/models/flight-delay")
    live: set[Any] = set()
    at_once = [0]

    def began(request: Any) -> None:
        if request.url.endswith("/events/changes"):
            live.add(request)
            at_once.append(len(live))

    def ended(request: Any) -> None:
        live.discard(request)

    visitor.context.on("request", began)
    visitor.context.on("requestfinished", ended)
    visitor.context.on("requestfailed", ended)
    second.get_by_role("button", name="A clear morning").click()
    ask(second)
    expect(second.locator("section .notice").first).to_contain_text("In the queue")
    expect(second.locator("header .chip")).to_have_text("99 credits")
    # The other tab hears of it by itself, now and when it ends.
    expect(first.get_by_role("row").nth(1)).to_contain_text("Queued")
    expect(first.locator("header .chip")).to_have_text("99 credits")
    no_worker()
    expect(second.locator(".result-label")).to_have_text("On time")
    expect(first.get_by_role("row").nth(1)).to_contain_text("Succeeded")
    assert max(at_once) <= 1, "only the tab that holds the stream may open one anew"
    second.get_by_role("button", name="Sign out").first.click()
    expect(first).to_have_url(re.compile("/ui/sign-in"))


def test_a_page_that_is_reloaded_while_it_waits_shows_the_same(visit: Visit, no_worker: Any) -> None:
    page = visit().signed_up("/ui/models/flight-delay")
    page.get_by_role("button", name="A thunderstorm in the evening").click()
    ask(page)
    for _ in range(2):
        expect(page.locator("section .notice").first).to_contain_text("In the queue")
        expect(page.locator("header .chip")).to_have_text("99 credits")
        # What was asked stands in the form, and nothing is asked again.
        expect(page.get_by_label("Carrier")).to_have_value("5")
        expect(page.locator(".chip", has_text="Queued")).to_be_visible()
        address = page.url
        page.reload()
        expect(page).to_have_url(address)
    no_worker()
    expect(result(page)).to_have_text("Delayed")
    page.reload()
    expect(result(page)).to_have_text("Delayed")
    expect(page.locator("header .chip")).to_have_text("99 credits")
    page.get_by_role("link", name="History", exact=True).click()
    expect(page.locator("tbody tr")).to_have_count(1)


def test_what_waits_can_be_canceled_and_costs_nothing(visit: Visit, no_worker: Any) -> None:
    page = visit().signed_up("/ui/models/flight-delay")
    page.get_by_role("button", name="A clear morning").click()
    ask(page)
    expect(page.locator("header .chip")).to_have_text("99 credits")
    page.get_by_role("link", name="Its page").click()
    page.get_by_role("button", name="Cancel it").click()
    expect(page.locator(".chip", has_text="Canceled")).to_be_visible()
    expect(page.locator("header .chip")).to_have_text("100 credits")


def test_the_app_dies_and_comes_back_while_an_answer_is_awaited(visit: Visit, product: System, no_worker: Any) -> None:
    page = visit().signed_up("/ui/models/flight-delay")
    page.get_by_role("button", name="A thunderstorm in the evening").click()
    ask(page)
    expect(page.locator("section .notice").first).to_contain_text("In the queue")
    run_aside(product.end(product.alive("app"), signal.SIGKILL))
    expect(page.locator(".banner")).to_be_visible()
    # Nothing on the page is lost meanwhile, and what is typed stays.
    page.locator("form.ask input[inputmode=decimal]").fill("1234")
    no_worker()
    expect(page.locator(".banner")).to_have_count(0)
    expect(result(page)).to_have_text("Delayed")
    expect(page.locator("form.ask input[inputmode=decimal]")).to_have_value("1234")


def test_asking_while_the_app_is_away_happens_once_it_is_back(
    visit: Visit, product: System, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(lambda: run_aside(product.heal()))
    page = visit().signed_up("/ui/models/flight-delay")
    keys: list[str] = []
    page.on(
        "request",
        lambda sent: keys.append(sent.headers["idempotency-key"]) if sent.url.endswith("/predict") else None,
    )
    page.get_by_role("button", name="A clear morning").click()
    run_aside(product.end(product.alive("app"), signal.SIGKILL))
    ask(page)
    expect(page.locator(".banner")).to_be_visible()
    expect(page.locator("form.ask [role=status]")).to_contain_text("goes out by itself")
    # The banner says that it is away: nothing else does.
    expect(page.locator("[role=alert]")).to_have_count(0)
    run_aside(product.heal())
    expect(result(page)).to_have_text("On time")
    expect(page.locator("header .chip")).to_have_text("99 credits")
    assert len(keys) >= 2
    assert len(set(keys)) == 1, "the same key, so that it is carried out once"


def test_a_session_that_is_over_loses_nothing(visit: Visit) -> None:
    visitor = visit()
    page = visitor.signed_up("/ui/models/sentiment")
    page.get_by_label("Text").fill("The crew was kind.")
    visitor.context.clear_cookies()
    ask(page)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Your session is over")
    dialog.locator("input[name=password]").fill(PASSWORD)
    dialog.locator("button[type=submit]").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_label("Text")).to_have_value("The crew was kind.")
    ask(page)
    expect(page.locator(".result-label")).to_be_visible()


def test_a_list_that_was_not_read_for_want_of_a_session_is_read_after_it(visit: Visit) -> None:
    visitor = visit(locale="ru-RU")
    page = visitor.signed_up("/ui/models/flight-delay")
    page.locator("form.ask [role=group] button").first.click()
    page.locator("form.ask button[type=submit]").click()
    expect(page.locator(".result-label")).to_be_visible()
    page.goto(visitor.url + "/ui/history")
    expect(page.locator("tbody tr")).to_have_count(1)
    visitor.context.clear_cookies()
    page.get_by_label("Состояние").select_option("succeeded")
    dialog = page.get_by_role("dialog")
    # Where the only thing is that is asked for.
    expect(dialog.locator("input[name=password]")).to_be_focused()
    # The dialog says it: behind it there is no error about tokens.
    expect(page.locator("main .notice")).to_have_count(0)
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.locator("tbody tr")).to_have_count(1)
    # Whoever has scrolled down sees that the connection is lost.
    page.set_viewport_size({"width": 360, "height": 300})
    page.evaluate("scrollTo(0, 10000)")
    visitor.context.set_offline(True)
    expect(page.locator(".banner")).to_be_in_viewport()
    visitor.context.set_offline(False)
    expect(page.locator(".banner")).to_have_count(0)


def sign_in(page: Page, name: str) -> None:
    page.locator("input[name=username]").fill(name)
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("form button[type=submit]").click()
    expect(page.locator("header .chip")).to_be_visible()


def test_who_signs_in_next_finds_nothing_of_who_signed_out(visit: Visit) -> None:
    other = visit()
    other.signed_up()
    visitor = visit()
    page = visitor.signed_up("/ui/models/sentiment")
    elsewhere = visitor.open("/ui/models/sentiment")
    elsewhere.get_by_label("Text").fill("A secret of mine, elsewhere.")
    history = visitor.open("/ui/history?status=failed")
    expect(history.locator("h1")).to_have_text("History")
    page.get_by_label("Text").fill("A secret of mine.")
    ask(page)
    expect(result(page)).to_be_visible()
    expect(page).to_have_url(re.compile("prediction="))
    page.get_by_role("button", name="Sign out").first.click()
    for tab in (page, elsewhere):
        expect(tab.get_by_role("link", name="Sign in to ask")).to_be_visible()
        expect(tab).to_have_url(visitor.url + "/ui/models/sentiment")
        expect(tab.get_by_label("Text")).to_have_value("")
        expect(tab.locator("main")).not_to_contain_text("secret")
    expect(history).to_have_url(visitor.url + "/ui/sign-in")
    page.get_by_role("link", name="Sign in to ask").click()
    sign_in(page, other.name)
    expect(page).to_have_url(visitor.url + "/ui/models/sentiment")
    expect(page.locator("main")).not_to_contain_text("secret")
    expect(page.get_by_text("There is no such prediction.")).to_have_count(0)


def test_another_person_after_a_session_that_ran_out_finds_nothing_either(visit: Visit) -> None:
    other = visit()
    other.signed_up()
    visitor = visit()
    page = visitor.signed_up("/ui/models/sentiment")
    page.get_by_label("Text").fill("A secret of mine.")
    ask(page)
    expect(result(page)).to_be_visible()
    visitor.context.clear_cookies()
    # In another tab, another person: this one hears of it.
    sign_in(visitor.open("/ui/sign-in"), other.name)
    expect(page).to_have_url(visitor.url + "/ui/models/sentiment")
    expect(page.get_by_label("Text")).to_have_value("")
    expect(page.locator("main")).not_to_contain_text("secret")
    expect(page.locator("header .chip")).to_have_text("100 credits")


def test_an_address_that_can_t_be_is_told_so_with_a_way_back(visit: Visit) -> None:
    visitor = visit()
    page = visitor.signed_up("/ui/history?status=foo&span=day")
    alert = page.locator("main [role=alert]")
    expect(alert).to_contain_text("Status: there is no “foo”.")
    expect(alert).not_to_contain_text("errors")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    page.get_by_role("link", name="Drop this filter").click()
    expect(page).to_have_url(visitor.url + "/ui/history?span=day")
    expect(alert).to_have_count(0)
    for path in ("/ui/models/%00", "/ui/models/nothing-of-that-kind"):
        page.goto(visitor.url + path)
        expect(alert).to_contain_text(f"There is no model “{path.removeprefix('/ui/models/')}”.")
        expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    alert.get_by_role("link", name="To the models").click()
    expect(page.locator("h1")).to_have_text("Models")


def test_a_page_that_could_not_be_loaded_says_so_and_comes_when_it_can(visit: Visit) -> None:
    visitor = visit()
    page = visitor.context.new_page()
    page.route("**/assets/en-*.js", lambda route: route.abort())
    page.goto(visitor.url + "/ui/models")
    expect(page.locator("#page")).to_contain_text("could not be loaded")
    page.unroute("**/assets/en-*.js")
    page.reload()
    expect(page.locator("h1")).to_have_text("Models")


def test_out_of_credits_has_a_face_of_its_own(visit: Visit) -> None:
    page = visit().signed_up("/ui/models/odd")
    page.route("**/balance", lambda route: route.fulfill(json={"available": 2, "held": 0, "threshold": None}))
    page.reload()
    expect(page.locator("form.ask .notice")).to_contain_text("Not enough credits")
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_disabled()
    page.get_by_role("link", name="To the balance").click()
    expect(page.locator("h1")).to_have_text("Balance")


def test_what_if_says_its_price_first_and_draws(visit: Visit) -> None:
    page = visit().signed_up("/ui/models/flight-delay")
    page.get_by_role("button", name="A clear morning").click()
    page.get_by_label("Points").select_option("8")
    expect(page.get_by_text("32 predictions: 32 credits")).to_be_visible()
    page.get_by_role("button", name="Draw").click()
    expect(page.get_by_text("Done. It cost 32 credits.")).to_be_visible()
    expect(page.locator(".plot canvas")).to_be_visible()
    page.get_by_text("As a table").click()
    table = page.locator("details table")
    expect(table.get_by_role("columnheader")).to_have_text(
        ["Departure time", "Clear", "Cloudy", "Rain", "Thunderstorm"]
    )
    expect(table.get_by_role("row")).to_have_count(9)
    expect(page.locator("header .chip")).to_have_text("68 credits")


def test_a_double_click_on_what_if_neither_stops_it_nor_begins_it_again(visit: Visit) -> None:
    page = visit().signed_up("/ui/models/flight-delay")
    page.get_by_role("button", name="A clear morning").click()
    page.get_by_label("Points").select_option("8")
    # So slow that the button has become the other one before the second click.
    page.get_by_role("button", name="Draw").dblclick(delay=100)
    expect(page.get_by_text("Done. It cost 32 credits.")).to_be_visible()
    expect(page.locator("header .chip")).to_have_text("68 credits")
    held: list[Route] = []
    page.route("**/predictions/predict", lambda route: held.append(route))
    page.get_by_role("button", name="Draw").click()
    expect(page.get_by_text("0 of 32")).to_be_visible()
    page.get_by_role("button", name="Stop").dblclick(delay=100)
    expect(page.get_by_role("button", name="Draw")).to_be_visible()
    assert len(held) == 4


def test_the_same_request_runs_as_a_program(visit: Visit) -> None:
    page = visit().signed_up("/ui/models/sentiment")
    page.get_by_label("Text").fill("It's \"fine\", $HOME isn't\nЭкипаж был вежлив")
    page.get_by_role("button", name="Fill in a new key").click()
    program = page.locator("pre")
    # Not "ftl_…", which stands there until the key has come.
    expect(program).to_contain_text(re.compile(r"ftl_[\w-]{20}"))
    texts = {}
    for name in ("curl", "Python", "JavaScript"):
        page.get_by_role("button", name=name, exact=True).click()
        texts[name] = program.inner_text()
    commands = {
        "curl": ["sh", "-c", texts["curl"]],
        "Python": [sys.executable, "-c", texts["Python"]],
        "JavaScript": ["node", "--input-type=module", "-e", texts["JavaScript"]],
    }
    for name, command in commands.items():
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert "succeeded" in done.stdout, (name, done)
    page.goto(page.url.split("/ui/")[0] + "/ui/keys")
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_role("button", name="Revoke: From the page").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("There is no key yet.")).to_be_visible()


def test_the_account_is_the_person_s_own(visit: Visit) -> None:
    visitor = visit()
    page = visitor.signed_up("/ui/account")
    page.get_by_label("Password until now").fill("not it at all")
    page.get_by_label("New password").fill("another " + PASSWORD)
    page.get_by_role("button", name="Change the password").click()
    expect(page.locator("form .wrong")).to_be_visible()
    page.get_by_label("Password until now").fill(PASSWORD)
    page.get_by_role("button", name="Change the password").click()
    expect(page.locator(".messages")).to_contain_text("The password is changed")
    expect(page.locator(".session")).to_have_count(1)
    page.get_by_label("Language").select_option("ru")
    expect(page.locator("h1")).to_have_text("Аккаунт")
    page.get_by_label("Тема").select_option("dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    # On another device the account speaks as it was told to.
    other = visit().open("/ui/sign-in")
    other.locator("input[name=username]").fill(visitor.name)
    other.locator("input[name=password]").fill("another " + PASSWORD)
    other.locator("form button[type=submit]").click()
    expect(other.locator("h1")).to_have_text("Модели")
    expect(other.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Закрыть аккаунт").click()
    page.get_by_role("dialog").get_by_label("Пароль").fill("another " + PASSWORD)
    page.get_by_role("dialog").get_by_role("button", name="Закрыть аккаунт").click()
    expect(page).to_have_url(re.compile("/ui/sign-in"))
