"""Maps updates to handlers: commands, buttons by the first part of their data, and all others."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from foretell.services.bot.talk import Talk

#: Gets the text after the command.
OnCommand = Callable[[Talk, str], Awaitable[None]]
#: Gets the parts of the button's data after the first.
OnButton = Callable[[Talk, list[str]], Awaitable[None]]
#: Returns whether it has handled the update.
OnUpdate = Callable[[Talk], Awaitable[bool]]

_Handler = TypeVar("_Handler")


class Router:
    """The handlers of one module."""

    def __init__(self) -> None:
        self.commands: dict[str, OnCommand] = {}
        self.buttons: dict[str, OnButton] = {}
        self.others: list[OnUpdate] = []

    def command(self, name: str) -> Callable[[OnCommand], OnCommand]:
        """Register a handler of `/name`."""
        return _into(self.commands, name)

    def button(self, name: str) -> Callable[[OnButton], OnButton]:
        """Register a handler of buttons whose data is `name:…`."""
        return _into(self.buttons, name)

    def update(self, handler: OnUpdate) -> OnUpdate:
        """Register a handler of updates that are neither command nor button."""
        self.others.append(handler)
        return handler

    def include(self, other: "Router") -> None:
        """Add the handlers of another router."""
        assert not self.commands.keys() & other.commands.keys()
        assert not self.buttons.keys() & other.buttons.keys()
        self.commands |= other.commands
        self.buttons |= other.buttons
        self.others += other.others


def _into(table: dict[str, _Handler], name: str) -> Callable[[_Handler], _Handler]:
    def add(handler: _Handler) -> _Handler:
        assert name not in table
        table[name] = handler
        return handler

    return add
