"""Only regular files are read."""

import os
import socket
from pathlib import Path

import pytest

from sitkit.recipes.storage.files import open_regular, read_regular, sha256


def test_regular_files_are_read_through_links_and_nothing_else_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular(tmp_path / "file") == read_regular(tmp_path / "link") == b"content"
    os.mkfifo(tmp_path / "fifo")  # without a writer, plain `open` would wait for one
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("fifo", "device", ".", "socket", "lost"):
            for read in (open_regular, read_regular, sha256):
                with pytest.raises(OSError, match=r"not a regular file|No such"):
                    read(tmp_path / name)
