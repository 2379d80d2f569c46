"""Lines that wait: whole, in order, and never more than fit."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from foretell.kit.log_buffer import Chunk, LogBuffer


def _chunk(number: int, lines: int = 1) -> tuple[bytes, int]:
    return b"%03d\n" % number * lines, lines


def test_what_is_taken_is_the_oldest_and_as_much_as_fits() -> None:
    buffer = LogBuffer(1000)
    for number in range(5):
        buffer.add(*_chunk(number))
    assert buffer.take(11) == [Chunk(b"000\n", 1), Chunk(b"001\n", 1)]
    # One is always taken, however large it is: otherwise it would never go.
    assert buffer.take(1) == [Chunk(b"002\n", 1)]
    assert len(buffer.take(1000)) == 2
    assert buffer.take(1000) == []


def test_when_it_is_full_the_oldest_go_and_their_lines_are_counted() -> None:
    buffer = LogBuffer(12)
    buffer.add(*_chunk(0, lines=2))
    buffer.add(*_chunk(1))
    buffer.add(*_chunk(2))
    assert (buffer.dropped, buffer.kept_bytes) == (2, 8)
    assert [chunk.data for chunk in buffer.take(100)] == [b"001\n", b"002\n"]


def test_one_that_fits_nowhere_is_dropped_alone() -> None:
    buffer = LogBuffer(12)
    buffer.add(b"x" * 13, 1)
    assert (buffer.dropped, buffer.kept_bytes) == (1, 0)


def test_what_is_under_way_counts_and_is_the_oldest_again_when_it_comes_back() -> None:
    buffer = LogBuffer(12)
    buffer.add(*_chunk(0))
    buffer.add(*_chunk(1))
    taken = buffer.take(100)
    buffer.add(*_chunk(2))
    buffer.add(*_chunk(3))
    # There was no room for another beside those that are under way.
    assert (buffer.dropped, buffer.kept_bytes) == (1, 12)
    buffer.put_back(taken)
    assert [chunk.data for chunk in buffer.take(100)] == [b"000\n", b"001\n", b"003\n"]


def test_what_nobody_wants_counts_as_dropped() -> None:
    buffer = LogBuffer(100)
    buffer.add(*_chunk(0, lines=3))
    buffer.done(buffer.take(100), dropped=True)
    assert (buffer.dropped, buffer.kept_bytes) == (3, 0)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 12)),
            st.tuples(st.just("take"), st.integers(1, 200)),
            st.tuples(st.sampled_from(["done", "put back"]), st.just(0)),
        )
    )
)
def test_no_line_is_lost_uncounted_and_the_bound_holds(steps: list[tuple[str, int]]) -> None:
    buffer = LogBuffer(100)
    taken: deque[list[Chunk]] = deque()
    added = sent = 0
    for step, number in steps:
        if step == "add":
            buffer.add(*_chunk(number, number))
            added += number
        elif step == "take":
            taken.append(buffer.take(number))
        elif taken and step == "done":
            chunks = taken.popleft()
            buffer.done(chunks)
            sent += sum(chunk.lines for chunk in chunks)
        elif taken:
            buffer.put_back(taken.popleft())
        assert buffer.kept_bytes <= 100
    while taken:
        buffer.put_back(taken.pop())
    assert added == sent + buffer.dropped + sum(chunk.lines for chunk in buffer.take(10_000))
