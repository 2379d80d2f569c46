"""A model as a Python class of the package: what the class must look like, and how its types become schemas.

    class Features(BaseModel):
        x: float

    class Answer(BaseModel):
        y: float

    class Doubler:
        def load(self, folder: Path) -> None: ...            # once, before the first prediction; may be left out
        def preprocess(self, batch: list[Raw]) -> list[Features]: ...  # if the input is raw; needs no load()
        def predict(self, batch: list[Features]) -> list[Answer]: ...

It is created without arguments. The items of the lists are types that pydantic supports: models, dataclasses, typed
dictionaries. `preprocess` may raise `InvalidField`, or return one in place of a row.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from foretell.inference.package import InvalidField, ModelPackage, PackageBroken

Row = dict[str, Any]


class NotAModel(Exception):
    """What the class is missing; a sentence."""


@dataclass(frozen=True, slots=True)
class Step:
    """Input and output types of one method, for a row."""

    takes: TypeAdapter[Any]
    gives: TypeAdapter[Any]

    @property
    def taken_schema(self) -> dict[str, Any]:
        """JSON Schema of an input row."""
        return self.takes.json_schema(mode="validation")

    @property
    def given_schema(self) -> dict[str, Any]:
        """JSON Schema of an output row."""
        return self.gives.json_schema(mode="serialization")


def step(kind: type, method: str) -> Step:
    """The types of `method(self, batch: list[A]) -> list[B]`. Raises `NotAModel`."""
    function = getattr(kind, method, None)
    if function is None:
        raise NotAModel(f"The class {kind.__name__} has no method {method}.")
    if inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.isasyncgenfunction(inspect.unwrap(function)):
        raise NotAModel(f"{kind.__name__}.{method} is asynchronous. Write it with a plain `def`: it has a thread.")
    try:
        hints = get_type_hints(inspect.unwrap(function))
    except NameError as error:
        raise NotAModel(f"A type that {kind.__name__}.{method} names is unknown: {error}.") from error
    answer = hints.pop("return", None)
    (taken, *more) = get_args(next(iter(hints.values()), None)) or (None,)
    (given, *_) = get_args(answer) or (None,)
    if taken is None or given is None or more:
        raise NotAModel(f"{kind.__name__}.{method} must say what it takes and gives: (batch: list[A]) -> list[B].")
    return Step(_adapter(taken, kind, method), _adapter(given, kind, method))


def _adapter(row: Any, kind: type, method: str) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(row)
    except PydanticUserError as error:
        reason = str(error).splitlines()[0]
        raise NotAModel(
            f"{kind.__name__}.{method} names a type that pydantic can't check: {reason} "
            "Use a pydantic model, a dataclass or a typed dictionary of plain values."
        ) from error


def schemas(kind: type) -> dict[str, dict[str, Any]]:
    """The schemas of the types of a class: "features", "output", and "input" with preprocessing.

    Raises `NotAModel`.
    """
    predict = step(kind, "predict")
    try:
        made = {"features": predict.taken_schema, "output": predict.given_schema}
        if hasattr(kind, "preprocess"):
            made["input"] = step(kind, "preprocess").taken_schema
    except PydanticUserError as error:
        reason = str(error).splitlines()[0]
        raise NotAModel(f"{kind.__name__} names a type that JSON does not have: {reason}") from error
    return made


def check_schemas(package: ModelPackage, kind: type) -> None:
    """Raises `PackageBroken` if the types of the class differ from the package's schemas."""
    stand = {"features": package.features_schema, "output": package.output_schema}
    if package.has_preprocessing:
        stand["input"] = package.input_schema
    try:
        given = schemas(kind)
    except NotAModel as error:
        raise PackageBroken(str(error), package.path, "Correct the class.") from error
    for stage, schema in given.items():
        if stage in stand and schema != stand[stage]:
            raise PackageBroken(
                f"The types of {kind.__name__} do not give this schema any more",
                package.path / f"{stage}.schema.json",
                "If the class is right, write the schemas anew: foretell models check --update",
            )


def preprocessing(package: ModelPackage, kind: type) -> Callable[[list[Row]], list[Row | InvalidField]]:
    """The `preprocess` of a class as a function of rows, with its exceptions. Raises `PackageBroken`."""
    check_schemas(package, kind)
    try:
        types = step(kind, "preprocess")
        preprocess = kind().preprocess
    except NotAModel as error:
        raise PackageBroken(str(error), package.path, "Correct the class.") from error
    except Exception as error:
        raise _not_made(package, kind, error) from error

    def run(rows: list[Row]) -> list[Row | InvalidField]:
        taken = [_taken(types.takes, row) for row in rows]
        whole = [row for row in taken if not isinstance(row, InvalidField)]
        answers = preprocess(whole) if whole else []
        if len(answers) != len(whole):
            raise RuntimeError(f"{len(whole)} rows went in and {len(answers)} came out")
        following = iter(answers)
        made = [row if isinstance(row, InvalidField) else next(following) for row in taken]
        return [row if isinstance(row, InvalidField) else dump(types.gives, row) for row in made]

    return run


def dump(types: TypeAdapter[Any], value: Any) -> Any:
    """`value` as JSON values. A value of another type is refused by the schema; pydantic's warning would show it."""
    return types.dump_python(value, mode="json", warnings="none")


def make(package: ModelPackage, kind: type) -> Any:
    """An instance that is ready to predict. Raises `PackageBroken`."""
    check_schemas(package, kind)
    try:
        instance = kind()
        if hasattr(instance, "load"):
            instance.load(package.path)
    except Exception as error:
        raise _not_made(package, kind, error) from error
    return instance


def _not_made(package: ModelPackage, kind: type, error: Exception) -> PackageBroken:
    return PackageBroken(
        f"The class {kind.__name__} cannot be made ready: {type(error).__name__}: {error}",
        package.path,
        "Correct the class, or install what it needs.",
    )


def _taken(types: TypeAdapter[Any], row: Row) -> Any:
    try:
        return types.validate_python(row)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return InvalidField(".".join(map(str, first["loc"])) or "The value", f"is wrong: {first['msg']}")
