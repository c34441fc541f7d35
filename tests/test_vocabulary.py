"""The words of the repository are the field's: one name for one thing."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORDS = {
    r"teams?|leads": "process group, rank, is_main",
    r"pieces": "micro-batches, shards, parts",
    r"recompute[sd]?": "activation checkpointing",
    r"products|product's": "matmuls, GEMM throughput, MFU",
    r"(go|goes|going|went) on|begins?|began|begun": "resume, continue, start, create",
    r"kept": "saved, stored",
    r"averages of (the )?weights": "EMA",
    r"network calls": "NFE",
    r"one's own|of its own|of their own": "custom, separate",
    r"what is known of|the number that": "say what the thing is and does",
}
"""Words that are not used, as patterns, and what to say instead."""
EXCEPTIONS: dict[str, str] = {}


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
                if re.search(rf"\b({words})\b", line, re.IGNORECASE) and not any(e in line for e in EXCEPTIONS):
                    found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:140]}")
    assert not found, f"say {WORDS[words]}:\n" + "\n".join(found)
