"""The rules in force: the shipped ones, overridden by the operator's file, which is read again when it changes.

An error in the file does not stop alerting: its valid rules are used, and every error is reported with its place.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import structlog

from foretell.contracts.reports.alert_rules import Rule
from foretell.services.monitoring.alerts.rules import RuleBroken, read_rule

log = structlog.get_logger()

_CONDITION = ("above", "below", "resolve_above", "resolve_below")
_LARGEST_FILE_BYTES = 1024 * 1024

Tables = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mistake:
    """An error in a rule file; `rule` and `field` are empty for an error of the whole file or rule."""

    file: str
    rule: str
    field: str
    detail: str

    def __str__(self) -> str:
        place = ".".join(part for part in (self.rule, self.field) if part)
        return f"{self.file}: {f'[{place}] ' if place else ''}{self.detail}"


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules by name, and the errors.

    `broken` are names of invalid rules of the file that are not shipped; `unread`: the file could not be read at all.
    """

    rules: dict[str, Rule]
    mistakes: list[Mistake] = field(default_factory=list)
    broken: frozenset[str] = frozenset()
    unread: bool = False

    def may_have(self, name: str) -> bool:
        """Whether such a rule may exist but can't be read now, so that its alerts must stay open."""
        return name in self.broken or (self.unread and name not in self.rules)


def shipped_tables() -> Tables:
    """The shipped rules as TOML tables."""
    return tomllib.loads((resources.files(__package__) / "defaults.toml").read_text(encoding="utf-8"))


def merged(shipped: Tables, tables: Tables, file: str) -> RuleSet:
    """The shipped rules, overridden by name by `tables` from `file`.

    A table changes only the given fields of a shipped rule. If the result is invalid, the shipped rule is used.
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
    """`base` with these `fields`. A new threshold also changes the resolve threshold, in proportion."""
    if "above" not in fields and "below" not in fields:
        return {**base, **fields}
    kept = {name: value for name, value in base.items() if name not in _CONDITION}
    for threshold, resolve in (("above", "resolve_below"), ("below", "resolve_above")):
        new, old, back = fields.get(threshold), base.get(threshold), base.get(resolve)
        if isinstance(new, (int, float)) and old and back is not None:
            kept[resolve] = back * new / old
    return {**kept, **fields}


class RuleFile:
    """The current rules; `path` is the operator's file, if there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._shipped = shipped_tables()
        self._seen: object = None
        self.current = merged(self._shipped, {}, "")
        self.look()

    def look(self) -> bool:
        """Read the file again if it has changed; returns whether it has.

        When it can't be read, the last rules stay in force.
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
    """A value that changes when the file is changed, created or removed."""
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
