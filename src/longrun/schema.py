"""JSON schema of the spec files, made from the model, so that editors complete and check them."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

from longrun.specs import KINDS

SINGULAR = {
    "releases": "release",
    "interpreters": "interpreter",
    "libraries": "library",
    "toolchains": "toolchain",
    "packages": "package",
    "checks": "check",
    "systems": "system",
    "bases": "base",
    "images": "image",
}


def schemas() -> dict[str, str]:
    """File name below ``specs/schema/`` to the text of the schema."""
    return {
        f"{SINGULAR[kind]}.schema.json": json.dumps(schema(type_), indent=2) + "\n"
        for kind, type_ in KINDS.items()
    }


def schema(type_: type[Any]) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of one spec file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _table(type_)


def _table(type_: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(type_)
    properties, required = {}, []
    for field in dataclasses.fields(type_):
        properties[field.name] = {"description": field.metadata["doc"]} | _value(hints[field.name])
        if field.default is field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    return {
        "title": type_.__name__,
        "description": (type_.__doc__ or "").strip().split("\n")[0],
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _value(type_: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is types.UnionType:
        return _value(arguments[0])
    if origin is tuple:
        return {"type": "array", "items": _value(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _value(arguments[1])}
    if dataclasses.is_dataclass(type_):
        return _table(type_)  # type: ignore[arg-type]
    return {"type": {str: "string", int: "integer", bool: "boolean"}[type_]}
