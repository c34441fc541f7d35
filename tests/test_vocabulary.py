"""The words of the repository are the field's: one name for one thing."""

import ast
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORDS = {
    r"teams?|leads": "process group, rank, is_main",
    r"pieces": "micro-batches, shards, parts",
    r"recompute[sd]?": "activation checkpointing",
    r"product's|products' rate|matrix products|products of matrices": "matmuls, GEMM throughput, MFU",
    r"(go|goes|going|went) on|begins?|began|begun": "resume, continue, start, create",
    r"kept": "saved, stored",
    r"averages of (the )?weights": "EMA",
    r"network calls": "NFE",
    r"one's own|of its own|of their own": "custom, separate",
    r"what is known of|the number that": "say what the thing is and does",
}
"""Words that are not used, as patterns, and what to say instead."""
NAMES = (
    "begun.json",  # a file of latent caches
    "network calls a batch",  # a key of likelihood.json
    "compute.recompute",  # the old name of a key, which is accepted
    '"recompute": True',
    "and `recompute`",
    '"activation_checkpointing", "recompute"',
    "recompute=true",
)
"""Names in files that exist, and old names that are accepted."""


def texts() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [ROOT / name for name in listed if name.endswith((".py", ".md", ".toml", ".html", ".sh"))]
    generated = [ROOT / "docs" / "results", ROOT / "tests" / "golden"]
    return [file for file in files if not any(folder in file.parent.parents for folder in generated)]


@pytest.mark.parametrize("words", WORDS)
def test_words_are_the_terms_of_the_field(words: str) -> None:
    found = []
    for file in texts():
        if file != Path(__file__):
            for number, line in enumerate(file.read_text().splitlines(), 1):
                if re.search(rf"\b({words})\b", line, re.IGNORECASE) and not any(name in line for name in NAMES):
                    found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:140]}")
    assert not found, f"say {WORDS[words]}:\n" + "\n".join(found)


def test_every_class_has_a_name_that_no_other_has() -> None:
    """Protocols are repeated by design: each library states what it needs."""
    found: dict[str, list[str]] = defaultdict(list)
    for package in ("interpolants", "backbones", "objectives", "samplers", "recipes"):
        for file in (ROOT / package).rglob("*.py"):
            if file.name != "protocols.py":
                tree = ast.parse(file.read_text())
                for name in {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}:
                    found[name].append(str(file.relative_to(ROOT)))
    assert {name: files for name, files in found.items() if len(files) > 1} == {}
