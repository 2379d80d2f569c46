"""The simulation of `benchmarks/scaling.py`: what goes in comes out, and costs are what they were said to be."""

import pytest
from benchmarks.scaling_model import PARTS, Cost, Layout, Simulation

COSTS = {name: Cost(0.001, 0.0001) for name in PARTS}


def test_one_client_pays_each_batch_alone() -> None:
    found = Simulation(COSTS, Layout()).closed(1, 20)
    # Request, intake, the statement's share and the commit, one after the other.
    before_s = 0.0011 + 0.75 * 0.0011 + 0.5 * 0.0011 + 0.0005
    assert found.p50_ms == pytest.approx(1000 * before_s, rel=0.01)
    assert found.accepted_per_s == pytest.approx(1 / before_s, rel=0.02)
    assert found.batch["intake"] == 1
    assert found.cpu_us["app"] == pytest.approx(1100, rel=0.02)
    assert found.settled_per_s == pytest.approx(found.accepted_per_s, rel=0.02)


def test_many_share_batches() -> None:
    few, many = (Simulation(COSTS, Layout(cores=2)).closed(clients, 5) for clients in (4, 128))
    assert many.batch["intake"] > 4 * few.batch["intake"]
    assert many.accepted_per_s > 2 * few.accepted_per_s
    assert sum(many.cpu_us.values()) < sum(few.cpu_us.values()) / 2


def test_cores_are_a_bound() -> None:
    found = Simulation(COSTS, Layout(cores=1)).closed(64, 5)
    assert 0.9 < found.accepted_per_s * sum(found.cpu_us.values()) / 1e6 <= 1.01


def test_an_open_load_comes_as_often_as_it_was_told_to() -> None:
    found = Simulation(COSTS, Layout()).open(200, 20)
    assert found.accepted_per_s == pytest.approx(200, rel=0.1)
    assert found.settled_per_s == pytest.approx(200, rel=0.1)
