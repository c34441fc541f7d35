"""Image grids: captions are the names of the classes."""

import unicodedata

import numpy as np
import pytest
import torch

from sitkit.recipes.sampling.image_grid import caption_of, label_grid


def caption(name: str) -> bytes:
    """Return the caption of a column of white images of a class with this name."""
    white = torch.full((1, 3, 48, 48), 255, dtype=torch.uint8)
    return np.asarray(label_grid(white, torch.tensor([0]), [name]))[:22].tobytes()


def test_captions_have_the_letters_of_many_languages() -> None:
    """A character that the font lacks is rendered as a box."""
    drawn = [caption(letter) for letter in "nñşßжψŁא"]
    assert len(set(drawn)) == len(drawn)
    assert caption(unicodedata.normalize("NFD", "ñandú")) == caption("ñandú")  # file systems may store it so
    assert caption("a\n b") == caption("a b")


@pytest.mark.parametrize("name", ["猫", "a\x07", "\udce9"])
def test_a_name_that_cannot_be_rendered_is_replaced_by_its_label(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert caption_of(1, ["a", name]) == "#1"
    said = f"captions show #1 for the class {name!r}, which has a character that is not in the font\n"
    assert capsys.readouterr().err == said
    assert caption_of(0, ["a", name]) == "a"
