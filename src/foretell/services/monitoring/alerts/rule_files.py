"""The rules that hold: those that ship, with the operator's file over them, read anew when it changes.

A file that is wrong stops nothing: what can be used of it holds, and everybody is told what is wrong and where.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import structlog

from foretell.services.monitoring.alerts.rules import Rule, RuleBroken, read_rule

log = structlog.get_logger()

_CONDITION = ("above", "below", "resolve_above", "resolve_below")
_LARGEST_FILE_BYTES = 1024 * 1024

Tables = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a file of rules; `rule` and `field` are empty where it is about the whole file or rule."""

    file: str
    rule: str
    field: str
    detail: str

    def __str__(self) -> str:
        place = ".".join(part for part in (self.rule, self.field) if part)
        return f"{self.file}: {f'[{place}] ' if place else ''}{self.detail}"


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules by name, and what could not be used.

    `broken` are names of rules of the file that can't be used and do not ship; `unread` is a file of which nothing
    could be read.
    """

    rules: dict[str, Rule]
    mistakes: list[Mistake] = field(default_factory=list)
    broken: frozenset[str] = frozenset()
    unread: bool = False

    def may_have(self, name: str) -> bool:
        """Whether there may be such a rule, which can't be read now: nobody knows then whether its alerts are over."""
        return name in self.broken or (self.unread and name not in self.rules)


def shipped_tables() -> Tables:
    """The rules that ship, as they are written."""
    return tomllib.loads((resources.files(__package__) / "defaults.toml").read_text(encoding="utf-8"))


def merged(shipped: Tables, tables: Tables, file: str) -> RuleSet:
    """The rules that ship, with those of `tables`, which stand in `file`, over them by name.

    Of a rule that ships, only what is said anew changes; if that does not fit, it holds as it ships.
    """
    rules = {name: read_rule(name, fields) for name, fields in shipped.items()}
    mistakes: list[Mistake] = []
    broken: set[str] = set()
    for name, fields in tables.items():
        try:
            if not isinstance(fields, dict):
                raise RuleBroken("", "A rule is a table: a line [name], and its fields below.")
            rules[name] = read_rule(name, _over(shipped.get(name, {}), fields))
        except RuleBroken as error:
            mistakes.append(Mistake(file, name, error.field, str(error)))
            if name not in shipped:
                broken.add(name)
    return RuleSet(rules, mistakes, frozenset(broken))


def _over(base: Mapping[str, Any], fields: Mapping[str, Any]) -> Tables:
    """`fields` over those of `base`. Another threshold takes the one for resolving along, in proportion."""
    if "above" not in fields and "below" not in fields:
        return {**base, **fields}
    kept = {name: value for name, value in base.items() if name not in _CONDITION}
    for threshold, resolve in (("above", "resolve_below"), ("below", "resolve_above")):
        new, old, back = fields.get(threshold), base.get(threshold), base.get(resolve)
        if isinstance(new, (int, float)) and old and back is not None:
            kept[resolve] = back * new / old
    return {**kept, **fields}


class RuleFile:
    """The rules as they are now; `path` is the operator's file, if there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._shipped = shipped_tables()
        self._seen: object = None
        self.current = merged(self._shipped, {}, "")
        self.look()

    def look(self) -> bool:
        """Read the file anew if it changed since; whether it did.

        When it can't be read, what held until now goes on to hold.
        """
        if self.path is None:
            return False
        seen = _signature(self.path)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.current = merged(self._shipped, _read(self.path), str(self.path))
        except RuleBroken as error:
            mistake = Mistake(str(self.path), "", "", str(error))
            self.current = RuleSet(self.current.rules, [mistake], self.current.broken, unread=True)
        for mistake in self.current.mistakes:
            log.error(
                "alert_rule_refused",
                rules_file=mistake.file,
                rule_name=mistake.rule,
                field=mistake.field,
                detail=mistake.detail,
            )
        log.info("alert_rules_read", rules=len(self.current.rules), mistakes=len(self.current.mistakes))
        return True


def _signature(path: Path) -> object:
    """What changes when the file does; also when it comes and goes."""
    try:
        status = path.stat()
    except OSError as error:
        return type(error).__name__
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path) -> Tables:
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_FILE_BYTES + 1)
        if len(content) > _LARGEST_FILE_BYTES:
            raise RuleBroken("", f"The file is larger than {_LARGEST_FILE_BYTES} bytes.")
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise RuleBroken("", f"The file can't be read: {error.strerror or type(error).__name__}.") from None
    except UnicodeDecodeError:
        raise RuleBroken("", "The file is no UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise RuleBroken("", f"The file is not TOML: {error}.") from None
    except RecursionError:
        raise RuleBroken("", "The file is nested too deep.") from None
