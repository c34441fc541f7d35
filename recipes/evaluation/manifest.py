"""What a report says as plain values: numbers of several sets side by side, and everything that they depend on."""

from collections.abc import Mapping
from typing import Any

from .feature_extraction import FeatureExtraction
from .feature_statistics import FeatureStatistics
from .measure import Metric
from .reference import Reference
from .sample_sets import SampleSet


def side_by_side(numbers: dict[str, list[Metric]]) -> dict[str, Any]:
    """Return the numbers by name, with those of other sets of samples beside the first's."""
    found = {number.name: number.describe() for number in numbers[""]}
    for what, others in numbers.items():
        for number in others if what else ():
            said = number.describe()
            found[number.name][what] = {key: said[key] for key in ("mean", "spread", "values", "bias")}
    return found


def manifest_of(
    sets: dict[str, list[SampleSet]],
    looked: FeatureStatistics,
    evaluation: Mapping[str, Any],
    reference: Reference,
    how: FeatureExtraction,
) -> dict[str, Any]:
    """Return everything that the numbers depend on; of evaluation, what the recipe says now."""
    first = sets[""][0]
    found = {what or "as the recipe says": some[0].costs() for what, some in sets.items()}
    costs = {what: cost for what, cost in found.items() if cost is not None}
    kept = dict(first.manifest)
    own = {} if first.drawn else {"samples_sha256": looked.sha256}
    return (
        kept
        | own
        | {
            "recipe": kept.get("recipe", {}) | {"evaluation": evaluation},
            "samples": len(first),
            "draws": len(sets[""]),
            "seeds": [one.manifest["seed"] for one in sets[""] if "seed" in one.manifest],
            "network_calls": {what: calls for what, (calls, _) in costs.items()},
            "network_rows_a_sample": {what: rows for what, (_, rows) in costs.items()},
            "features": how.describe() | {"size": len(reference.statistics.pooled[0])},
            "reference": reference.about,
        }
    )
