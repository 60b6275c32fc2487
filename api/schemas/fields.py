"""Fields that several bodies share."""

from datetime import datetime
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from core.db.text import storable_text


def _storable(text: str) -> str:
    if storable_text(text) != text:
        raise ValueError("must not contain the character NUL or half of a surrogate pair")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), AfterValidator(_storable)]
# Also the name of a file in the trainer's run folder.
Split = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Id = Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_]+$")]
PathId = Annotated[str, Path(max_length=40, pattern=r"^[A-Za-z0-9_]+$", description="As in `id`.")]
Moment = Annotated[datetime, Field(description="UTC.", examples=["2026-01-31T12:00:00Z"])]


class Body(BaseModel):
    """Parent of what users send: a field we do not know is an error, a number is not a string."""

    model_config = ConfigDict(extra="forbid", strict=True)
