"""The base class of validated records: sections of recipes, and JSON files in run folders and caches."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a recipe: strict, frozen, and without room for keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
