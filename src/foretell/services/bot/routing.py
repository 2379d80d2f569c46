"""Which handler answers what: commands, buttons by the first part of their data, and the rest."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from foretell.services.bot.talk import Talk

#: Gets what stands behind the command.
OnCommand = Callable[[Talk, str], Awaitable[None]]
#: Gets the parts of the button's data behind the first.
OnButton = Callable[[Talk, list[str]], Awaitable[None]]
#: Says whether it was its business.
OnUpdate = Callable[[Talk], Awaitable[bool]]

_Handler = TypeVar("_Handler")


class Router:
    """What one file answers."""

    def __init__(self) -> None:
        self.commands: dict[str, OnCommand] = {}
        self.buttons: dict[str, OnButton] = {}
        self.others: list[OnUpdate] = []

    def command(self, name: str) -> Callable[[OnCommand], OnCommand]:
        """`/name`."""
        return _into(self.commands, name)

    def button(self, name: str) -> Callable[[OnButton], OnButton]:
        """Buttons whose data is `name:…`."""
        return _into(self.buttons, name)

    def update(self, handler: OnUpdate) -> OnUpdate:
        """Whatever is no command and no button."""
        self.others.append(handler)
        return handler

    def include(self, other: "Router") -> None:
        """Answer what another file answers, too."""
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
