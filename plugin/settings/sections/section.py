"""What all sections of the settings are: frozen and strict, with numbers that fit their meaning."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Milliseconds = Annotated[float, Field(gt=0)]
Slot = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """Frozen and strict: a misspelt key or a value of another type is an error, never a guess."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
