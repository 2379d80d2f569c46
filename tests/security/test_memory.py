"""Whatever is sent to the model service without a password: its memory stays within one and a half times its rest."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil
import pytest
from benchmarks.abuse import Watched, attack
from tests.service_process import running_service

#: Each leaves its own kind of memory behind, and in a row they would add up.
TRIES = (
    "10,000 flights, 20 at once",
    "10,000 flights as tensors, 20 at once",
    '[{"":0},{"":0},… of 800 KiB',
    "a tensor of a million numbers",
    "16 MiB of nothing as tensors",
    "bodies of 15 MiB, hung up",
    "fields after a body, without end",
)


@pytest.mark.timeout(120)
def test_abuse_in_a_row_takes_half_of_the_rest_at_most(tmp_path: Path) -> None:
    with running_service("model", tmp_path) as service, ProcessPoolExecutor(1) as attackers:
        process = psutil.Process(service.process.pid)
        attackers.submit(attack, "model", "one flight", service.port, 0.5).result()
        rest = process.memory_info().rss
        most = {}
        for name in TRIES:
            watched = Watched(process, service.url)
            attacking = attackers.submit(attack, "model", name, service.port, 1.0)
            watched.watch(attacking.done)
            assert attacking.result(), name
            most[name] = round(watched.largest / rest, 2)
        assert max(most.values()) <= 1.5, most
