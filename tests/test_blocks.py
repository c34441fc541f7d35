"""Files of blocks of rows: a block is complete or recognised as incomplete."""

from pathlib import Path

import numpy as np
import pytest

from sitkit.recipes.storage.blocks import BlockStore
from sitkit.recipes.storage.npy_header import Shape
from sitkit.recipes.support.errors import UserError

WISHES: dict[str, tuple[str, Shape]] = {"pixels": ("u", (None, 1, 2, 2)), "calls": ("iu", ()), "n": ("iu", (None,))}


def test_no_bit_of_a_shard_can_change_unseen(tmp_path: Path) -> None:
    """A file with any one changed bit reads as written, or is refused with one line."""
    blocks = BlockStore(tmp_path, 5, 5, "do it again")
    arrays = {"pixels": np.arange(20, dtype=np.uint8).reshape(5, 1, 2, 2), "calls": np.array(3), "n": np.arange(5)}
    blocks.write(0, arrays)
    file = blocks.file(0)
    content = file.read_bytes()
    problems: list[str] = []
    contents = content.index(b"PK\x01\x02")
    bits = [(place, place // 2 % 8) for place in range(0, contents, 2)]
    bits += [(place, bit) for place in range(contents, len(content)) for bit in (0, 7)]
    for place, bit in bits:
        file.write_bytes(content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :])
        blocks.missing()
        try:
            found = blocks.read(0, WISHES)
        except UserError as problem:
            problems.append(str(problem))
        else:
            assert found.keys() == arrays.keys()
            assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    assert len(problems) > len(bits) / 2
    assert "\n" not in "".join(problems)
    for place in range(0, len(content), 16):
        file.write_bytes(content[:place])
        assert blocks.missing() == [0]


def test_a_block_with_other_rows_counts_as_missing(tmp_path: Path) -> None:
    blocks = BlockStore(tmp_path, 7, 5, "do it again")
    blocks.write(1, {"x": np.zeros(2), "all": np.array(1)})
    assert blocks.missing() == [0]
    assert BlockStore(tmp_path, 8, 5, "").missing([1]) == [1]
    with pytest.raises(UserError, match=r"x is float64 \(2,\) instead of .* of shape \(3,\)\): .* do it again"):
        BlockStore(tmp_path, 8, 5, "do it again").read(1, {"x": ("f", (None,))})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/below cannot be written: .*; fix that, then run the same command"):
        BlockStore(tmp_path / "file/below", 7, 5, "").write(0, {"x": np.zeros(5)})
