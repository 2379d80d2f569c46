import pytest

from foretell.local.services import SERVICES, InvalidPort, NotInThisRelease, Service, UnknownService, find, runnable

HERE = "foretell.kit.clock"
ABSENT = "foretell.services.nowhere.app"


def test_the_table_keeps_the_promised_names_and_ports() -> None:
    assert [service.name for service in SERVICES] == [
        "app", "dispatcher", "worker", "model", "preprocessing", "monitoring", "bot",
    ]  # fmt: skip
    assert {service.name: service.port for service in SERVICES if service.port} == {
        "app": 8000,
        "model": 8001,
        "preprocessing": 8002,
        "monitoring": 8003,
        "bot": 8004,
    }
    assert [(service.name, service.count) for service in SERVICES if service.scales] == [("worker", 3)]


def test_what_this_release_lacks_is_left_out_in_silence() -> None:
    services, remarks = runnable([Service("here", HERE), Service("absent", ABSENT)], {})
    assert ([service.name for service in services], remarks) == (["here"], [])


def test_a_service_without_a_setting_that_it_needs_is_left_out_with_one_sentence() -> None:
    bot = Service("bot", HERE, needs=("TELEGRAM_TOKEN",))
    services, remarks = runnable([bot], {})
    assert services == []
    assert remarks == ["The bot is not started: TELEGRAM_TOKEN is not set."]
    assert runnable([bot], {"TELEGRAM_TOKEN": "1:a"}) == ([bot], [])


def test_find() -> None:
    table = [Service("here", HERE), Service("absent", ABSENT)]
    assert find("here", table) is table[0]
    with pytest.raises(NotInThisRelease):
        find("absent", table)
    with pytest.raises(UnknownService, match="here, absent"):
        find("her", table)


def test_the_port_comes_from_the_service_s_own_variable() -> None:
    app = Service("app", HERE, port=8000)
    assert app.port_from({}) == 8000
    assert app.port_from({"FORETELL_APP_PORT": "18000"}) == 18000
    assert Service("worker", HERE).port_from({"FORETELL_WORKER_PORT": "18000"}) == 0


@pytest.mark.parametrize("value", ["0", "65536", "-1", "http", "8000.5"])
def test_a_port_that_is_none_is_refused_with_its_variable(value: str) -> None:
    with pytest.raises(InvalidPort, match="FORETELL_APP_PORT"):
        Service("app", HERE, port=8000).port_from({"FORETELL_APP_PORT": value})
