"""What every part's config has in common: frozen, typed, and strict about unknown keys."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A part's config. Unknown keys are errors, values are never changed after validation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, serialize_by_alias=True)


def may_change_on_resume(default: Any = ..., **constraints: Any) -> Any:
    """A field that a resumed run may set anew. Any other field must stay as the run began."""
    return Field(default, json_schema_extra={"may_change_on_resume": True}, **constraints)
