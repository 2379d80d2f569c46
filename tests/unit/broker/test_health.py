"""A broker says what is wrong with it, and no longer than it is."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from foretell.broker import health
from foretell.broker.connect import connect
from foretell.broker.health import Publishes
from foretell.broker.port import BrokerUnavailable, Unroutable


def test_publishes_that_fail_in_a_row_are_trouble_until_one_succeeds() -> None:
    publishes = Publishes()
    for _ in range(2):
        publishes.failed("no answer")
        assert publishes.trouble is None
    publishes.failed("no answer")
    assert publishes.trouble is not None
    assert publishes.trouble.reason == "publish_failing"
    assert "3 messages" in publishes.trouble.message
    assert "no answer" in publishes.trouble.message
    publishes.succeeded()
    assert publishes.trouble is None


def _shown() -> Mapping[str, float | None]:
    return {
        reason: REGISTRY.get_sample_value("foretell_broker_trouble", {"reason": reason})
        for reason in ("away", "publish_failing")
    }


async def test_health_and_metric_say_the_same(tmp_path: Path) -> None:
    broker = await connect(f"sqlite:///{tmp_path / 'broker.db'}", name="test")
    await health.check(broker)
    assert _shown() == {"away": 0.0, "publish_failing": 0.0}
    for _ in range(3):
        # What no queue takes is somebody's mistake, and not the broker's trouble.
        with pytest.raises(Unroutable):
            await broker.publish("nowhere", b"", message_id="one")
    await health.check(broker)
    await broker.close()
    with pytest.raises(BrokerUnavailable, match="can't be used"):
        await health.check(broker)
    assert _shown() == {"away": 1.0, "publish_failing": 0.0}
