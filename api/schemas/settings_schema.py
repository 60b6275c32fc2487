"""JSON schema of a dataclass whose fields know their meaning, unit and range (core.domain.ranges)."""

from dataclasses import Field as DataclassField
from dataclasses import fields
from enum import StrEnum
from typing import Any

_TYPES: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


def schema_of(kind: Any, nested: dict[str, Any] | None = None) -> dict[str, Any]:
    """The schema of an object with the fields of `kind`, all optional; `nested` has those that are objects."""
    nested = nested or {}
    properties = {f.name: nested[f.name] | _about(f) if f.name in nested else _property(f) for f in fields(kind)}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _property(f: DataclassField[Any]) -> dict[str, Any]:
    default = f.default
    if isinstance(default, StrEnum):
        return {"type": "string", "enum": [str(one) for one in type(default)], "default": str(default)} | _about(f)
    found: dict[str, Any] = {"type": _TYPES[type(default)], "default": default} | _about(f)
    if f.metadata.get("low") is not None:
        found |= {"minimum": f.metadata["low"], "maximum": f.metadata["high"]}
    return found


def _about(f: DataclassField[Any]) -> dict[str, Any]:
    unit = f.metadata.get("unit")
    return {"description": f.metadata["about"] + (f" ({unit})" if unit else "")}
