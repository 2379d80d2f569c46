"""When a consumer of a queue without a leader takes another connection, and when it gives the queue up."""

from foretell.broker.rabbitmq_silence import Remedy, Silences

NONE, ANOTHER, REBUILD = Remedy.NONE, Remedy.ANOTHER_CONNECTION, Remedy.REBUILD


def _asked_in_vain(silences: Silences, *connections: int) -> list[Remedy]:
    remedies = []
    for connection in connections:
        remedies.append(silences.ask(connection))
        if remedies[-1] is not ANOTHER:
            silences.silent()
    return remedies


def test_the_queue_of_one_host_is_given_up_when_a_fresh_connection_is_silent_too() -> None:
    silences = Silences(in_cluster=False)
    assert _asked_in_vain(silences, 1, 1, 1, 2, 2, 2) == [NONE, NONE, ANOTHER, NONE, NONE, REBUILD]


def test_what_did_not_help_is_tried_again_without_one_more_connection() -> None:
    silences = Silences(in_cluster=False)
    _asked_in_vain(silences, 1, 1, 1, 2, 2, 2)
    assert _asked_in_vain(silences, 2, 2) == [NONE, REBUILD]


def test_a_connection_that_another_consumer_gave_up_counts_as_given_up() -> None:
    """Two that share a connection: neither keeps the other from its end."""
    silences = Silences(in_cluster=False)
    assert _asked_in_vain(silences, 1, 1, 1, 2) == [NONE, NONE, ANOTHER, NONE]
    # The connection is lost while the queue is asked: no silence.
    assert silences.ask(2) is NONE
    assert _asked_in_vain(silences, 3, 3, 3) == [NONE, NONE, REBUILD]


def test_what_fails_in_another_way_is_no_silence_in_a_row() -> None:
    silences = Silences(in_cluster=False)
    for _ in range(10):
        assert _asked_in_vain(silences, 1) == [NONE]
        assert silences.ask(1) is NONE


def test_an_answer_ends_it() -> None:
    silences = Silences(in_cluster=False)
    assert silences.has_leader
    _asked_in_vain(silences, 1, 1, 1, 2)
    assert not silences.has_leader
    assert silences.ask(2) is NONE
    assert not silences.has_leader
    silences.answered()
    assert silences.has_leader
    assert _asked_in_vain(silences, 2, 2, 2) == [NONE, NONE, ANOTHER]


def test_in_a_cluster_nothing_is_given_up() -> None:
    silences = Silences(in_cluster=True)
    for connection in range(20):
        assert _asked_in_vain(silences, *[connection] * 3) == [NONE, NONE, ANOTHER]


def test_a_cluster_is_given_more_time_when_another_connection_did_not_help() -> None:
    silences, alone = Silences(in_cluster=True), Silences(in_cluster=False)
    for each in (silences, alone):
        assert not each.patient
        _asked_in_vain(each, 1, 1)
        assert not each.patient
        _asked_in_vain(each, 1, 2)
    assert silences.patient
    assert not alone.patient
    silences.answered()
    assert not silences.patient
