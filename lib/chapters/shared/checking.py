"""How a notebook's parameters are converted, checked and explained."""

import json
from collections.abc import Iterable, Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types as bounds
from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from lib.utils.names import OneOf
from lib.utils.text import did_you_mean, nearest
from lib.utils.yaml import YAMLError, read_yaml

MODELS: dict[str, type["Parameters"]] = {}
"""The model of each notebook's parameters; a model names its notebooks as it is declared."""

# Names that IPython puts beside those of the user.
_IPYTHON_NAMES = frozenset({"In", "Out", "exit", "quit", "get_ipython", "open"})

# The kinds of error whose text adds to the type and bounds of the parameter.
_OWN_REASONS = frozenset({"boolean", "repeated", "target"})


class ParameterError(ValueError):
    """A notebook's parameter has an unknown name or an unusable value; the text says what to do."""


class Parameters(BaseModel):
    """Base of every notebook's parameters: immutable, complete and strictly typed.

    Each field has a docstring: the comment beside the parameter in the notebook's cell.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    def __init_subclass__(cls, notebooks: Sequence[str] = (), **config: Any) -> None:
        """Enter a model for the notebooks that it is declared with."""
        super().__init_subclass__(**config)
        MODELS.update(dict.fromkeys(notebooks, cls))

    @field_validator("*", mode="before")
    @classmethod
    def _convert_safe_cases(cls, value: Any, info: Any) -> Any:
        return _convert(cls.model_fields[info.field_name].annotation, value)

    @field_validator("*")
    @classmethod
    def _refuse_repetition(cls, value: Any) -> Any:
        for items in value.values() if isinstance(value, dict) else [value]:
            if isinstance(items, list) and len(set(items)) < len(items):
                raise PydanticCustomError("repeated", "no value may stand twice")
        return value

    @model_validator(mode="after")
    def _tune_on_seeds_of_the_comparison(self) -> "Parameters":
        tuning, seeds = getattr(self, "tuning_seeds", 0), getattr(self, "seeds", None)
        if seeds is not None and tuning > seeds:
            raise PydanticCustomError(
                "seeds",
                "tuning_seeds = {tuning}: expected at most seeds = {seeds}, since they are the "
                "first of them; write -p tuning_seeds {seeds}",
                {"tuning": tuning, "seeds": seeds},
            )
        return self


def describe(field: FieldInfo) -> str:
    """Return the values that a parameter takes, in words.

    >>> from lib.chapters.shared.options import MethodOptions
    >>> describe(MethodOptions.model_fields["beta"])
    'a finite number, at least 0, less than 1'
    """
    if field.examples:
        return f"one of {', '.join(field.examples)}"
    return _describe_annotated(field.annotation, field.metadata)


def parameters_cell(model: type[Parameters]) -> str:
    """Return the text of a notebook's cell tagged ``parameters``: each with its default.

    >>> from lib.chapters.shared.options import TuningOptions
    >>> print(parameters_cell(TuningOptions).splitlines()[1])
    train_images: int = 800  # training images, drawn by the seed
    """
    return "\n".join(
        f"{name}: {cell_type(field)} = {_literal(field.default)}  # {field.description}"
        for name, field in model.model_fields.items()
    )


def cell_type(field: FieldInfo) -> str:
    """Return the type that a cell gives a parameter, without its bounds."""
    origin: Any = get_origin(field.annotation) or field.annotation
    return "str" if origin is Literal else str(origin.__name__)


def _literal(value: Any) -> str:
    """Write a default as the notebooks' formatter does."""
    if isinstance(value, dict):
        lines = (f"    {_literal(key)}: {_literal(item)},\n" for key, item in value.items())
        return f"{{\n{''.join(lines)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _convert(annotation: Any, value: Any) -> Any:
    """Convert values with a single meaning; refuse those that pydantic would convert wrongly."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (list, dict):
        if isinstance(value, str) and value.strip().startswith(("[", "{")):
            value = _parse_yaml(value)
        inner = get_args(annotation)[-1]
        if get_origin(annotation) is list and isinstance(value, list | tuple):
            return [_convert(inner, item) for item in value]
        if get_origin(annotation) is dict and isinstance(value, dict):
            return {key: _convert(inner, item) for key, item in value.items()}
    if annotation in (int, float) and isinstance(value, bool):
        raise PydanticCustomError("boolean", "{value} is no number", {"value": str(value)})
    if annotation is int and isinstance(value, str):
        return _parse_integer(value)
    return value


def _parse_yaml(text: str) -> Any:
    try:
        return read_yaml(text)
    except YAMLError:
        return text


def _parse_integer(text: str) -> int | str:
    # "1e3" and "20.0" are counts too; what is not whole stays text, for pydantic to refuse.
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and abs(number) < 2**53 else text


def _is_parameter(name: str, value: Any) -> bool:
    code = (ModuleType, FunctionType, BuiltinFunctionType, type)
    return not (name.startswith("_") or name in _IPYTHON_NAMES or isinstance(value, code))


def _explain(chosen: type[Parameters], given: dict[str, Any], details: ErrorDetails) -> str:
    location = details["loc"]
    if not location:
        return details["msg"]
    name = str(location[0])
    if name not in chosen.model_fields:
        return f"unknown parameter {name!r}{did_you_mean(name, chosen.model_fields)}"
    field = chosen.model_fields[name]
    place = name + "".join(f"[{step}]" for step in location[1:] if step != "[key]")
    reason = f" ({details['msg']})" if details["type"] in _OWN_REASONS else ""
    value = details["input"] if len(location) > 1 else given[name]
    return (
        f"{place} = {_short(value)}: expected {describe(field)}{reason}; "
        f"{_advise(name, field, value)}"
    )


def _advise(name: str, field: FieldInfo, value: Any) -> str:
    """Return the flag that sets the parameter properly."""
    if get_origin(field.annotation) in (list, dict):
        example = json.dumps(field.get_default(call_default_factory=True)).replace('"', "")
        return f"write -p {name} '{example}'"
    default = field.default
    if _takes_text(field.annotation) and isinstance(value, bool):
        words = "yes, on or true" if value else "no, off or false"
        return (
            f"YAML reads a bare {words} as {value}, so quote it: "
            f"-y '{{{name}: \"{_quoted_example(field, value)}\"}}'"
        )
    if _takes_text(field.annotation) and not isinstance(value, str):
        return f"quote it: -y '{{{name}: \"{default or value}\"}}'"
    if isinstance(value, str):
        default = nearest(value, _known(field.annotation, field.metadata)) or default
    if isinstance(default, bool):
        default = str(default).lower()
    return f"write -p {name} {'TEXT' if default == '' else default}"


def _quoted_example(field: FieldInfo, value: bool) -> str:
    words = ("yes", "on", "true") if value else ("no", "off", "false")
    allowed = _known(field.annotation, field.metadata)
    return next((word for word in words if word in allowed), str(field.default or words[0]))


def _takes_text(annotation: Any) -> bool:
    return annotation is str or get_origin(annotation) is Literal


def _known(annotation: Any, metadata: Iterable[Any]) -> tuple[str, ...]:
    """Return the words among which a parameter chooses, or () if it takes any."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((part.names for part in metadata if isinstance(part, OneOf)), ())


def _describe_annotated(annotation: Any, metadata: list[Any]) -> str:
    known = ", ".join(map(repr, _known(annotation, metadata)))
    words = f"one of {known}" if known else _describe_type(annotation)
    return ", ".join([words, *_describe_bounds(metadata)])


def _describe_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [bound for part in arguments[1:] for bound in getattr(part, "metadata", [part])]
        return _describe_annotated(arguments[0], inner)
    if origin is list:
        return f"a list, each {_describe_annotated(arguments[0], [])}"
    if origin is dict:
        return f"a mapping of {_describe_type(arguments[0])} to {_describe_type(arguments[1])}"
    names = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    return names[annotation]


def _describe_bounds(metadata: list[Any]) -> list[str]:
    words = []
    for bound in metadata:
        match bound:
            case bounds.Ge(ge=limit):
                words.append(f"at least {limit}")
            case bounds.Gt(gt=limit):
                words.append(f"more than {limit}")
            case bounds.Lt(lt=limit):
                words.append(f"less than {limit}")
            case bounds.Le(le=limit):
                words.append(f"at most {limit}")
            case bounds.MinLen():
                words.append("not empty")
    return words


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
