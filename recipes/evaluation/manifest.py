"""The contents of `report.json`: the metrics of all sets of samples, and everything that they depend on."""

from collections.abc import Mapping
from typing import Any

from .compute_metrics import Metric
from .feature_extraction import FeatureExtraction
from .feature_statistics import FeatureStatistics
from .reference import Reference
from .sample_sets import SampleSet


def side_by_side(metrics: dict[str, list[Metric]]) -> dict[str, Any]:
    """Return the metrics by name, each with its values for the other sets of samples."""
    found = {metric.name: metric.describe() for metric in metrics[""]}
    for what, others in metrics.items():
        for metric in others if what else ():
            plain = metric.describe()
            found[metric.name][what] = {key: plain[key] for key in ("mean", "spread", "values", "bias")}
    return found


def manifest_of(
    sets: dict[str, list[SampleSet]],
    statistics: FeatureStatistics,
    evaluation: Mapping[str, Any],
    reference: Reference,
    extraction: FeatureExtraction,
) -> dict[str, Any]:
    """Return everything that the metrics depend on; `evaluation` replaces that of the samples' recipe."""
    first = sets[""][0]
    found = {what or "as the recipe says": first_set[0].costs() for what, first_set in sets.items()}
    costs = {what: cost for what, cost in found.items() if cost is not None}
    manifest = dict(first.manifest)
    digest = {} if first.folder else {"samples_sha256": statistics.sha256}
    return (
        manifest
        | digest
        | {
            "recipe": manifest.get("recipe", {}) | {"evaluation": evaluation},
            "samples": len(first),
            "draws": len(sets[""]),
            "seeds": [one.manifest["seed"] for one in sets[""] if "seed" in one.manifest],
            "network_calls": {what: calls for what, (calls, _) in costs.items()},
            "network_rows_a_sample": {what: rows for what, (_, rows) in costs.items()},
            "features": extraction.describe() | {"size": len(reference.statistics.pooled[0])},
            "reference": reference.about,
        }
    )
