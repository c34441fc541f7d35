"""JSON Lines files, to which records are appended."""

import json
from pathlib import Path
from typing import Any

from ..support.errors import UserError
from ..support.json_toml import read_json
from .files import read_inside


def read_records(file: Path) -> list[dict[str, Any]]:
    """Return the complete records of a file; a last one that a crash truncated is skipped.

    Raises:
        UserError: a line is damaged.
    """
    if not file.exists():
        return []
    try:
        return [read_json(line) for line in read_inside(file.parent, file.name).splitlines() if line.endswith(b"}")]
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error}): repair or remove it") from None


def append_record(file: Path, record: dict[str, Any]) -> None:
    """Append a record to a file.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with file.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}; the checkpoints are intact") from error
