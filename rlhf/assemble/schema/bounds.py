"""How a key's type and bounds are written, checked and said in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import isclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from omegaconf import DictConfig, ListConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from rlhf.records import RecordError


@dataclass(frozen=True, slots=True)
class Hint:
    """Words after those of the bound: why it is so, or what to give instead."""

    text: str


AtLeastTwo = Annotated[int, Ge(2)]
Share = Annotated[float, Gt(0), Le(1)]
ShareOrZero = Annotated[float, Ge(0), Le(1)]


class Settings(BaseModel):
    """Keys with type, bounds and, where they are no group's, default and meaning.

    Which keys there are is Hydra's matter: one that is absent is not checked, one that no field describes passes.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


def check_ranges(cfg: DictConfig, schema: type[Settings]) -> None:
    """Compare every key of `schema` that the configuration has.

    Raises:
        RecordError: values out of their bounds, all of them in one message with what each may be.
    """
    try:
        schema.model_validate(_given(cfg, schema))
    except ValidationError as error:
        if wrong := [_told(schema, each) for each in error.errors() if each["type"] != "missing"]:
            raise RecordError("\n".join(wrong)) from None


def defaults_of(schema: type[Settings]) -> dict[str, Any]:
    """Key -> default, nested, of the keys that have one."""
    found = {}
    for name, field in schema.model_fields.items():
        inner = settings_in(field.annotation)
        if not field.is_required():
            found[name] = field.default
        elif inner not in (None, schema) and (nested := defaults_of(inner)):
            found[name] = nested
    return found


def refuse(problem: str, remedy: str = "") -> PydanticCustomError:
    """What a validator raises where a value does not fit another one."""
    return PydanticCustomError("misfit", "{problem}", {"problem": problem, "remedy": remedy})


def bound_at(schema: Any, key: str) -> str:
    """The type and bounds of a dotted key in words; empty where no field describes it."""
    for name in key.split("."):
        kind = _without_null(schema)
        if get_origin(kind) is dict:
            schema = get_args(kind)[1]
        elif isclass(kind) and issubclass(kind, Settings) and name in kind.model_fields:
            schema = kind.model_fields[name].rebuild_annotation()
        else:
            return ""
    return said(schema)


def settings_in(kind: Any) -> type[Settings] | None:
    """The model that a field holds, or that its entries are."""
    if isclass(kind) and issubclass(kind, Settings):
        return kind
    return next((found for each in get_args(kind) if (found := settings_in(each)) is not None), None)


def said(kind: Any) -> str:
    """A type and its bounds in words: `a whole number, 1 or more, or null`."""
    inner = _without_null(kind)
    null = ", or null" if NoneType in get_args(kind) else ""
    if get_origin(inner) is Annotated:
        base, *more = get_args(inner)
        hint = "".join(each.text for each in more if isinstance(each, Hint))
        limits = {type(m): getattr(m, type(m).__name__.lower()) for m in more if isinstance(m, Ge | Gt | Le | Lt)}
        return f"{_base(base, limits)}{null}{hint}"
    base = _base(inner, {})
    return f"{base}{null}" if base else ""


def _base(kind: Any, limits: Mapping[type, Any]) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if kind is int:
        least, most = limits.get(Ge, limits.get(Gt, -1) + 1), limits.get(Le)
        return f"a whole number, {least} or more" if most is None else f"a whole number, {least} to {most}"
    if kind is float:
        return _real(limits)
    return {str: "a text", bool: "true or false", list: "a list"}.get(get_origin(kind) or kind, "")


def _real(limits: Mapping[type, Any]) -> str:
    if Ge in limits and limits[Ge] == limits.get(Le):
        return f"{limits[Ge]:g}"
    if limits.get(Le) == 1:
        return "a share, from 0 to 1" if Ge in limits else "a share, above 0 and 1 at most"
    above = f"above {limits[Gt]:g}" if Gt in limits else f"of at least {limits[Ge]:g}"
    return f"a number {above}" + (f", below {limits[Lt]:g}" if Lt in limits else "")


def _without_null(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        return next(each for each in get_args(kind) if each is not NoneType)
    return kind


def _given(cfg: DictConfig, schema: type[Settings]) -> dict[str, Any]:
    """The values of the schema's keys, as plain Python; only they are resolved."""
    found: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        if name not in cfg:
            continue
        value, inner = cfg[name], _without_null(field.annotation)
        if isclass(inner) and issubclass(inner, Settings):
            if isinstance(value, DictConfig):
                found[name] = _given(value, inner)
        elif isinstance(value, DictConfig | ListConfig):
            found[name] = OmegaConf.to_container(value, resolve=True)
        else:
            found[name] = value
    return found


def _told(schema: type[Settings], error: Any) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "misfit":
        return str(RecordError(error["ctx"]["problem"], key=key, remedy=error["ctx"]["remedy"]))
    value = "null" if error["input"] is None else error["input"]
    return f"{key}={value} must be {bound_at(schema, key) or 'settings'}"
