"""Streams and requests that are kept by what they wait for."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


@contextmanager
def listed(items: dict[Key, list[Item]], key: Key, item: Item) -> Iterator[Item]:
    """Inside, `item` is among those of `key`; a key without items is removed."""
    items.setdefault(key, []).append(item)
    try:
        yield item
    finally:
        items[key].remove(item)
        if not items[key]:
            del items[key]
