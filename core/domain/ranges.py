"""Dataclass fields that know their meaning, unit and range: one place for docs, checks and the API's schema."""

from dataclasses import field, fields
from typing import Any

from core.errors import InvalidInput


def setting(default: Any, about: str, *, unit: str = "", low: float | None = None, high: float | None = None) -> Any:
    """A dataclass field with a default, a sentence about it, its unit and its inclusive range."""
    return field(default=default, metadata={"about": about, "unit": unit, "low": low, "high": high})


def check_ranges(config: Any, where: str) -> None:
    """Raise InvalidInput naming the first field of `config` that lies outside its range."""
    for f in fields(config):
        low, high, value = f.metadata.get("low"), f.metadata.get("high"), getattr(config, f.name)
        if low is None or high is None:
            continue
        if not low <= value <= high:
            raise InvalidInput(f"{where}.{f.name} must be from {low} to {high}, got {value}", field=f"{where}.{f.name}")
