"""Names that users type: suggestions for misspelt ones, and snake case."""

import re
from difflib import get_close_matches


def did_you_mean(name: str, known: list[str]) -> str:
    """Return ' (did you mean ...?)' with the most similar known name; an empty text if none is similar."""
    matches = get_close_matches(name, known, n=1)
    return f" (did you mean '{matches[0]}'?)" if matches else ""


def snake_case(name: str) -> str:
    """Return SineSquared as sine_squared, SiT as sit, KLEta as kl_eta, DINOv2 as dinov2."""
    return re.sub(r"(?<=[A-Za-z])(?=[A-Z][a-z](?!\d))", "_", name).lower()
