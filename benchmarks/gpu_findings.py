"""Findings of the checks on a GPU: a file of JSON lines, and a Markdown page."""

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Finding = dict[str, Any]
FINDINGS = "findings.jsonl"


@dataclass(frozen=True)
class Findings:
    """The findings of one section, appended to a file as they come.

    Args:
        folder: where the file is.
        section: the section of the findings.
        device: `cuda`, or `cpu` to test the checks without a GPU.
        quick: whether everything is small, to test the checks.
    """

    folder: Path
    section: str
    device: str = "cuda"
    quick: bool = False

    def write(self, what: str, **values: Any) -> None:
        """Append a finding."""
        self.folder.mkdir(parents=True, exist_ok=True)
        finding = {"section": self.section, "what": what, **values}
        with (self.folder / FINDINGS).open("a") as file:
            file.write(json.dumps(finding, default=str) + "\n")
        print(json.dumps(finding, default=str)[:300], flush=True)

    def guard(self, what: str, check: Callable[[], None]) -> None:
        """Run a check; a failure becomes a finding."""
        start = time.monotonic()
        try:
            check()
        except Exception as error:
            where = traceback.format_exc().strip().splitlines()[-8:]
            self.write(what, failed=f"{type(error).__name__}: {str(error)[:400]}", where=where)
        print(f"  {what}: {time.monotonic() - start:.1f} s", flush=True)


def read(folder: Path) -> list[Finding]:
    """Return all findings of a folder, without an incomplete last line."""
    file = folder / FINDINGS
    content = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith("\n")]


def forget(folder: Path, section: str) -> None:
    """Delete the findings of a section that is run again."""
    others = [finding for finding in read(folder) if finding["section"] != section]
    if folder.exists():
        (folder / FINDINGS).write_text("".join(json.dumps(finding) + "\n" for finding in others))


def page(folder: Path) -> str:
    """Return a Markdown page of all findings: a table per section, failures in bold."""
    lines: list[str] = []
    section = None
    for finding in read(folder):
        if finding["section"] != section:
            section = finding["section"]
            lines += ["", f"## {section}", "", "| what | found |", "| --- | --- |"]
        values = {key: value for key, value in finding.items() if key not in ("section", "what", "where")}
        found = "; ".join(f"{key}: {_cell(value)}" for key, value in values.items())
        bold = "**" if finding.get("failed") else ""
        lines.append(f"| {bold}{finding['what']}{bold} | {found} |")
    return "\n".join(lines).strip() + "\n"


def _cell(value: Any) -> str:
    text = ", ".join(map(_cell, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")[:400]
