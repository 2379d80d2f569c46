"""Notifications on their way to real receivers that are away, slow, full, or wrong."""

import base64
import hashlib
import hmac
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from tests.integration.monitoring.alerting import Alerting, alerting, only
from tests.integration.monitoring.receiving import Receiver, Reply, receiving
from tests.ports import free_port

from foretell.services.monitoring.alerts.channels import channels_of
from foretell.services.monitoring.alerts.settings import AlertSettings
from foretell.services.monitoring.alerts.throttle import Throttle

#: In which `house_of` has its tables.
pytestmark = pytest.mark.usefixtures("monitoring_file_url")

AT_ONCE = {"metric": "backlog", "by": ["queue"], "above": 10, "resolve_for_s": 0}
KEY = b"a key of thirty-two bytes, or so"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
TOKEN = "123456:AAF-secret_token-of-a-bot"
SECRET_PATH = "/services/T0/B0/secret-of-the-hook"


@asynccontextmanager
async def house_of(
    folder: Path, *, url: str = "", telegram: str = "", deadline_s: float = 10.0, **settings: Any
) -> AsyncIterator[Alerting]:
    """Alerting with a webhook at `url`, and a chat at `telegram`."""
    known = AlertSettings(
        alert_webhook_urls=(SecretStr(url + SECRET_PATH),) if url else (),
        alert_webhook_secret=SecretStr(SECRET),
        alert_telegram_chat="-100123" if telegram else "",
        telegram_token=SecretStr(TOKEN),
        telegram_api_url=telegram or "http://127.0.0.1:9",
        **settings,
    )
    channels = channels_of(known, deadline_s=deadline_s)
    rules = only(backlog=AT_ONCE)
    throttle = Throttle(damping_s=0, messages_per_hour=1000)
    async with alerting(f"sqlite:///{folder / 'monitoring.db'}", folder, rules, channels, throttle) as house:
        yield house


async def fire(house: Alerting, queue: str = "q", value: float = 11) -> None:
    """Let something happen that people are told of."""
    if not house.processes:
        house.process()
    house.processes[0].set("backlog", value, queue=queue)
    await house.step()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


async def test_a_webhook_is_signed_as_standard_webhooks_says(tmp_path: Path, receiver: Receiver) -> None:
    async with house_of(tmp_path, url=receiver.url) as house:
        await fire(house)
        await house.sender.send_due()
        (got,) = receiver.got
        assert got.path == SECRET_PATH
        assert got.headers["content-type"] == "application/json"
        assert got.headers["webhook-timestamp"] == str(int(house.at.timestamp()))
        signed = b".".join([got.headers["webhook-id"].encode(), got.headers["webhook-timestamp"].encode(), got.body])
        expected = base64.b64encode(hmac.new(base64.b64decode(SECRET[6:]), signed, hashlib.sha256).digest()).decode()
        assert got.headers["webhook-signature"] == f"v1,{expected}"
        assert (got.said["type"], got.said["data"]["alerts"][0]["rule"]) == ("alerts.changed", "backlog")
        assert await house.waiting() == []
        await house.sender.send_due()
        assert len(receiver.got) == 1


async def test_without_a_secret_it_is_not_signed(tmp_path: Path, receiver: Receiver) -> None:
    settings = AlertSettings(alert_webhook_urls=(SecretStr(receiver.url),))
    async with alerting(
        f"sqlite:///{tmp_path / 'monitoring.db'}", tmp_path, only(backlog=AT_ONCE), channels_of(settings)
    ) as house:
        await fire(house)
        await house.sender.send_due()
    assert "webhook-signature" not in receiver.got[0].headers
    assert receiver.got[0].headers["webhook-id"].startswith("msg_")


@pytest.mark.parametrize(
    "wrong", [Reply(500), Reply(503), Reply(429), Reply(408), Reply(301, {"location": "/elsewhere"}), Reply(304)]
)
async def test_what_may_pass_is_tried_again_with_the_same_id(tmp_path: Path, receiver: Receiver, wrong: Reply) -> None:
    receiver.replies = [wrong, wrong, Reply()]
    async with house_of(tmp_path, url=receiver.url) as house:
        await fire(house)
        await house.sender.send_due()
        # Not at once.
        await house.sender.send_due()
        assert len(receiver.got) == 1
        pauses = []
        while len(receiver.got) < 3:
            (notification,) = await house.waiting()
            assert notification.next_attempt_at is not None
            pauses.append((notification.next_attempt_at - house.at).total_seconds())
            house.at = notification.next_attempt_at
            house.start()
            await house.sender.send_due()
        assert 3 < pauses[0] < pauses[1] < 20
        assert await house.waiting() == []
        assert len({each.headers["webhook-id"] for each in receiver.got}) == 1
        assert len({each.body for each in receiver.got}) == 1
        assert len({each.headers["webhook-timestamp"] for each in receiver.got}) == 3
        assert not any(b"followed" in each.body for each in receiver.got)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
async def test_what_blames_us_is_given_up_and_the_next_notice_is_sent(
    tmp_path: Path, receiver: Receiver, status: int
) -> None:
    receiver.replies = [Reply(status), Reply()]
    async with house_of(tmp_path, url=receiver.url) as house:
        with capture_logs() as lines:
            await fire(house, "a")
            await house.sender.send_due()
            assert await house.waiting() == []
        (given_up,) = [line for line in lines if line["event"] == "notice_given_up"]
        assert given_up["reason"] == str(status)
        await fire(house, "b")
        await house.sender.send_due()
        assert [each.said["data"]["alerts"][0]["subject"]["queue"] for each in receiver.got] == ["a", "b"]


async def test_a_receiver_that_was_down_gets_everything_in_order(tmp_path: Path) -> None:
    port = free_port()
    async with house_of(tmp_path, url=f"http://127.0.0.1:{port}") as house:
        for queue in ("a", "b", "c"):
            await fire(house, queue)
            await house.sender.send_due()
        notices = await house.waiting()
        assert [each.attempts for each in notices][1:] == [0, 0]
        assert "ConnectError" in str(notices[0].last_error)
        with receiving(port=port) as receiver:
            house.at += timedelta(minutes=10)
            house.start()
            await house.sender.send_due()
            assert [each.said["data"]["alerts"][0]["subject"]["queue"] for each in receiver.got] == ["a", "b", "c"]
            assert [each.headers["webhook-id"] for each in receiver.got] == [each.id for each in notices]
        assert await house.waiting() == []


async def test_a_notice_that_always_fails_lets_the_others_go_first_at_last(tmp_path: Path, receiver: Receiver) -> None:
    receiver.replies = [Reply(500)] * 8 + [Reply(), Reply(500)]
    async with house_of(tmp_path, url=receiver.url) as house:
        await fire(house, "a")
        await fire(house, "b")
        while len(receiver.got) < 10:
            house.at += timedelta(minutes=10)
            await house.sender.send_due()
        tried = [each.said["data"]["alerts"][0]["subject"]["queue"] for each in receiver.got]
        # Eight times alone; then the other goes, whatever becomes of this one.
        assert tried == ["a"] * 8 + ["b", "a"]
        (stuck,) = await house.waiting()
        assert stuck.attempts == 9


@pytest.mark.parametrize("wrong", [Reply(hang=True), Reply(drip=True)], ids=["hangs", "drips"])
async def test_who_does_not_answer_in_time_is_tried_again(tmp_path: Path, receiver: Receiver, wrong: Reply) -> None:
    receiver.replies = [wrong, Reply()]
    async with house_of(tmp_path, url=receiver.url, deadline_s=0.3) as house:
        await fire(house)
        await house.sender.send_due()
        (notification,) = await house.waiting()
        assert notification.last_error == "no answer within 0.3 s"
        house.at += timedelta(seconds=30)
        await house.sender.send_due()
        assert await house.waiting() == []


async def test_one_channel_that_hangs_keeps_nothing_from_the_other(tmp_path: Path, receiver: Receiver) -> None:
    with receiving(Reply(hang=True)) as hanging:
        async with house_of(tmp_path, url=hanging.url, telegram=receiver.url, deadline_s=0.5) as house:
            await fire(house)
            await house.sender.send_due()
            assert (len(hanging.got), len(receiver.got)) == (1, 1)
            assert [each.channel.split()[0] for each in await house.waiting()] == ["webhook"]


async def test_after_a_day_a_notice_is_given_up(tmp_path: Path) -> None:
    async with house_of(tmp_path, url=f"http://127.0.0.1:{free_port()}") as house:
        await fire(house)
        await house.sender.send_due()
        house.at += timedelta(hours=23)
        await house.sender.send_due()
        assert len(await house.waiting()) == 1
        house.at += timedelta(hours=1)
        with capture_logs() as lines:
            await house.sender.send_due()
        assert await house.waiting() == []
        assert [line["event"] for line in lines] == ["notice_given_up"]


async def test_who_was_killed_while_sending_sends_again_with_the_same_id(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house_of(tmp_path, url=receiver.url) as house:
        await fire(house)

        class Killed(BaseException):
            """As far as the database can see."""

        async def killed(*_: Any, **__: Any) -> None:
            raise Killed

        monkeypatch.setattr(house.sender, "_settle", killed)
        with pytest.raises(Killed):
            await house.sender.send_due()
        house.start()
        # Not while the other may be at it still.
        await house.sender.send_due()
        assert len(receiver.got) == 1
        house.at += timedelta(seconds=31)
        await house.sender.send_due()
        assert len(receiver.got) == 2
        assert receiver.got[0].headers["webhook-id"] == receiver.got[1].headers["webhook-id"]
        assert await house.waiting() == []


async def test_a_channel_that_is_not_set_any_more_is_not_waited_for(tmp_path: Path, receiver: Receiver) -> None:
    async with house_of(tmp_path, url=receiver.url) as house:
        await fire(house)
        house._channels.clear()
        house.start()
        await house.sender.send_due()
        assert (await house.waiting(), receiver.got) == ([], [])


async def test_a_chat_is_written_to_in_plain_words(tmp_path: Path, receiver: Receiver) -> None:
    receiver.replies = [Reply(body=b'{"ok":true,"result":{}}')]
    async with house_of(tmp_path, telegram=receiver.url, alert_language="ru") as house:
        await fire(house)
        await house.sender.send_due()
        (got,) = receiver.got
        assert got.path == f"/bot{TOKEN}/sendMessage"
        assert got.said["chat_id"] == "-100123"
        assert got.said["text"].startswith("СРАБОТАЛО backlog (предупреждение): backlog: 11")
        assert "parse_mode" not in got.said
        assert await house.waiting() == []


async def test_telegram_says_how_long_it_wants_to_be_left_alone(tmp_path: Path, receiver: Receiver) -> None:
    flood = b'{"ok":false,"error_code":429,"description":"Too Many Requests","parameters":{"retry_after":77}}'
    receiver.replies = [Reply(429, body=flood), Reply(body=b'{"ok":true}')]
    async with house_of(tmp_path, telegram=receiver.url) as house:
        await fire(house)
        await house.sender.send_due()
        (notification,) = await house.waiting()
        assert notification.next_attempt_at == house.at + timedelta(seconds=77)
        assert notification.last_error == "429 Too Many Requests"
        house.at += timedelta(seconds=76)
        await house.sender.send_due()
        assert len(receiver.got) == 1
        house.at += timedelta(seconds=1)
        await house.sender.send_due()
        assert len(receiver.got) == 2
        assert await house.waiting() == []


async def test_a_webhook_may_say_so_too(tmp_path: Path, receiver: Receiver) -> None:
    receiver.replies = [Reply(503, {"retry-after": "120"}), Reply()]
    async with house_of(tmp_path, url=receiver.url) as house:
        await fire(house)
        await house.sender.send_due()
        (notification,) = await house.waiting()
        assert notification.next_attempt_at == house.at + timedelta(seconds=120)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(400, body=b'{"ok":false,"description":"Bad Request: chat not found"}'),
        Reply(404, body=b'{"ok":false,"description":"Not Found: /bot' + TOKEN.encode() + b'/sendMessage"}'),
        Reply(500, body=b"\xff\x00 no JSON"),
        Reply(200, body=b'{"ok":false}'),
        Reply(302, {"location": f"http://127.0.0.1:9/bot{TOKEN}/"}),
        Reply(429, body=b'{"parameters":{"retry_after":"soon"}}'),
        Reply(200, {"content-encoding": "gzip"}, b"no gzip"),
        Reply(hang=True),
    ],
)
async def test_no_secret_is_in_any_line_or_row_whatever_goes_wrong(
    tmp_path: Path, receiver: Receiver, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.replies = [reply]
    async with house_of(tmp_path, url=receiver.url, telegram=receiver.url, deadline_s=0.3) as house:
        with capture_logs() as lines:
            await fire(house)
            await house.sender.send_due()
            house.processes.clear()
        notices = await house.waiting()
    said = f"{lines} {notices} {caplog.text} {caplog.records}"
    assert len(receiver.got) == 2
    assert not any(secret in said for secret in (TOKEN, TOKEN.partition(":")[2], "secret-of-the-hook", SECRET))
    assert [line for line in lines if line["event"].startswith("notice_")] or reply.status == 200


async def test_who_cannot_be_reached_at_all_tells_no_secret_either(tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    nowhere = "http://no.such.host.invalid"
    for url in (away, nowhere):
        folder = tmp_path / url.rpartition("/")[2].replace(":", "-")
        folder.mkdir()
        async with house_of(folder, url=url, telegram=url) as house:
            with capture_logs() as lines:
                await fire(house)
                await house.sender.send_due()
            notices = await house.waiting()
            assert len(notices) == 2
            said = f"{lines} {notices}"
            assert not any(secret in said for secret in (TOKEN, "secret-of-the-hook"))
