"""Envelopes: bounded, of one model version each, and nothing lost on the way."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from foretell.contracts import queues
from foretell.contracts.envelopes import Parcel, pack, pack_results, unpack
from foretell.contracts.messages import Result, ResultEnvelope, Stage, TaskEnvelope, decode_tasks, encode
from foretell.kit.tracing import TraceContext

_NOW = datetime(2025, 11, 16, 9, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Order:
    """The least that can be packed."""

    model: str = "flight-delay"
    version: str = "1.0.0"
    pool: str | None = None
    stage: Stage = "input"
    payload: bytes = b"{}"
    id: UUID = field(default_factory=uuid4)


def _pack(orders: list[Order]) -> list[Parcel]:
    return list(pack(orders, _NOW))


def _sized(payload_bytes: int) -> Order:
    return Order(payload=b'"' + b"x" * (payload_bytes - 2) + b'"')


def test_nothing_makes_no_envelope() -> None:
    assert _pack([]) == []


def test_a_task_travels_to_the_letter() -> None:
    order = Order(payload=b'{"distance": 1.50, "big": 123456789012345678901234567890, "\\u0430": "\xd0\xb0"}')
    (parcel,) = _pack([order])
    assert (parcel.queue, parcel.ids) == ("ml_tasks", [order.id])
    envelope = decode_tasks(parcel.body)
    assert (envelope.model, envelope.version, envelope.published_at) == ("flight-delay", "1.0.0", _NOW)
    (task,) = envelope.tasks
    assert (task.id, task.stage, bytes(task.payload)) == (order.id, "input", order.payload)


def test_an_envelope_has_256_tasks_at_most() -> None:
    orders = [Order() for _ in range(513)]
    parcels = _pack(orders)
    assert [len(parcel.ids) for parcel in parcels] == [256, 256, 1]
    assert [identifier for parcel in parcels for identifier in parcel.ids] == [order.id for order in orders]


def test_an_envelope_has_256_kib_at_most() -> None:
    parcels = _pack([_sized(100 * 1024) for _ in range(5)])
    assert [len(parcel.ids) for parcel in parcels] == [2, 2, 1]
    assert all(len(parcel.body) <= queues.MAX_ENVELOPE_BYTES for parcel in parcels)


def test_a_larger_task_goes_alone() -> None:
    small, large, other = Order(), _sized(queues.MAX_ENVELOPE_BYTES + 1), Order()
    assert [parcel.ids for parcel in _pack([small, large, other])] == [[small.id], [large.id], [other.id]]


def test_models_versions_and_pools_keep_apart() -> None:
    orders = [
        Order(),
        Order(version="1.1.0"),
        Order(model="sentiment"),
        Order(pool="gpu"),
        Order(stage="features"),
        Order(pool="gpu"),
    ]
    parcels = _pack(orders)
    assert [parcel.queue for parcel in parcels] == ["ml_tasks", "ml_tasks", "ml_tasks", "ml_tasks.gpu"]
    first, second, third, fourth, fifth, sixth = (order.id for order in orders)
    assert [parcel.ids for parcel in parcels] == [[first, fifth], [second], [third], [fourth, sixth]]
    assert [task.stage for task in decode_tasks(parcels[0].body).tasks] == ["input", "features"]


def test_unpacked_every_task_is_alone() -> None:
    orders = [Order(payload=b"%d" % number) for number in range(3)]
    (parcel,) = _pack(orders)
    singles = unpack(decode_tasks(parcel.body))
    assert [[task.id for task in single.tasks] for single in singles] == [[order.id] for order in orders]
    assert [bytes(single.tasks[0].payload) for single in singles] == [b"0", b"1", b"2"]
    assert {(single.model, single.version, single.published_at) for single in singles} == {
        ("flight-delay", "1.0.0", _NOW)
    }


def test_a_trace_travels_with_its_task_and_no_other() -> None:
    orders = [Order() for _ in range(3)]
    trace = TraceContext(f"00-{'a' * 32}-{'b' * 16}-01", "vendor=1")
    (parcel,) = pack(orders, _NOW, {orders[1].id: trace})
    envelope = decode_tasks(parcel.body)
    assert [task.trace for task in envelope.tasks] == [None, trace, None]
    # Whoever is split off keeps its own.
    assert [single.tasks[0].trace for single in unpack(envelope)] == [None, trace, None]


_payloads = (
    # Not only what our own encoder writes: white space, and large ones.
    st.sampled_from([b"null", b"-1.50", b'{"a":[{}]}', b'{ "a" : [ 1 , 2 ] }', '"Ж\u2028"'.encode(), b'"\\u0000"'])
    | st.integers(2, 90_000).map(lambda size: b'"' + b"x" * size + b'"')
)
_orders = st.builds(
    Order,
    model=st.sampled_from(["flight-delay", "sentiment"]),
    version=st.sampled_from(["1.0.0", "2.0.0"]),
    pool=st.sampled_from([None, "gpu"]),
    stage=st.sampled_from(["input", "features"]),
    payload=_payloads,
    id=st.uuids(),
)


_states = st.text(alphabet='"\\\\a=', max_size=512)


@given(st.lists(_orders, max_size=40, unique_by=lambda order: order.id), st.data())
def test_whatever_is_packed_arrives_once_within_the_bounds(orders: list[Order], data: st.DataObject) -> None:
    traced = data.draw(st.lists(st.sampled_from(orders), max_size=40)) if orders else []
    traces = {order.id: TraceContext("0" * 55, data.draw(_states)) for order in traced}
    arrived: dict[UUID, tuple[str, str, str, str, bytes]] = {}
    for parcel in pack(orders, _NOW, traces):
        envelope: TaskEnvelope = decode_tasks(parcel.body)
        assert [task.id for task in envelope.tasks] == parcel.ids
        assert 1 <= len(parcel.ids) <= queues.MAX_ENVELOPE_TASKS
        # Besides the payloads there is the head of the envelope, which is not counted.
        assert len(parcel.body) <= queues.MAX_ENVELOPE_BYTES + 200 or len(parcel.ids) == 1
        for task in envelope.tasks:
            assert task.id not in arrived
            assert task.trace == traces.get(task.id)
            arrived[task.id] = (parcel.queue, envelope.model, envelope.version, task.stage, bytes(task.payload))
    assert arrived == {
        order.id: (queues.tasks_queue(order.pool), order.model, order.version, order.stage, order.payload)
        for order in orders
    }


def test_the_names_of_queues() -> None:
    assert queues.tasks_queue(None) == queues.tasks_queue("") == "ml_tasks"
    assert queues.tasks_queue("gpu") == "ml_tasks.gpu"
    assert queues.dead_queue(queues.RESULTS) == "ml_results.dead"


def _answer(sizes: list[int]) -> ResultEnvelope:
    results = [Result(uuid4(), output=msgspec.Raw(b'"' + b"x" * size + b'"')) for size in sizes]
    return ResultEnvelope("flight-delay", "1.0.0", "worker-7", _NOW, _NOW, _NOW, results)


@given(st.lists(st.sampled_from([2, 90_000, 300_000]), min_size=1, max_size=20))
def test_results_are_bounded_as_tasks_are_and_none_is_lost(sizes: list[int]) -> None:
    answer = _answer(sizes)
    parts = list(pack_results(answer))
    assert [result for part in parts for result in part.results] == answer.results
    for part in parts:
        assert len(encode(part)) <= queues.MAX_ENVELOPE_BYTES or len(part.results) == 1
        assert msgspec.structs.replace(part, results=[]) == msgspec.structs.replace(answer, results=[])


def test_results_that_fit_stay_together() -> None:
    assert len(list(pack_results(_answer([500] * 256)))) == 1
