"""The base class of validated records: sections of recipes, and JSON files in run folders and caches."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A validated record: types are strict, values are frozen, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
