"""Binary tensors: what is packed comes back, and what is cut or stretched is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.contracts.open_inference import pack_texts, split_binary, unpack_texts


@given(st.lists(st.binary()))
def test_packed_texts_come_back(texts: list[bytes]) -> None:
    assert unpack_texts(memoryview(pack_texts(texts)), len(texts)) == texts


@given(st.lists(st.binary(min_size=1), min_size=1), st.data())
def test_cut_texts_are_refused(texts: list[bytes], data: st.DataObject) -> None:
    packed = pack_texts(texts)
    cut = memoryview(packed)[: data.draw(st.integers(0, len(packed) - 1))]
    with pytest.raises(ValueError, match=r"beyond its end|and its shape"):
        unpack_texts(cut, len(texts))


def test_a_length_beyond_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond its end"):
        unpack_texts(memoryview(b"\xff\xff\xff\xff"), 1)


def test_no_more_elements_are_made_than_the_shape_has() -> None:
    with pytest.raises(ValueError, match="more than the 2 elements of its shape"):
        unpack_texts(memoryview(bytes(4 * 1_000_000)), 2)


@given(st.lists(st.binary()))
def test_tensors_stand_one_after_the_other(parts: list[bytes]) -> None:
    content = memoryview(b"".join(parts))
    assert [bytes(part) for part in split_binary(content, [len(part) for part in parts])] == parts


@pytest.mark.parametrize("sizes", [[3], [5], [2, 3], []])
def test_sizes_that_do_not_fill_the_body_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="4 bytes follow the JSON"):
        split_binary(memoryview(b"1234"), sizes)
