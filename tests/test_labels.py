"""Labels of samples, in turn or random: functions of the seed and the sample's number."""

import pytest
import torch

from sitkit.recipes.sampling.labels import Labels
from sitkit.recipes.support.errors import UserError

DIGITS = tuple("0123456789")


def test_balanced_labels_come_in_turn() -> None:
    numbers = torch.arange(25)
    labels = Labels(DIGITS)(5, numbers)
    assert labels is not None
    assert labels.tolist() == [number % 10 for number in range(25)]
    named = Labels(DIGITS, named=("7", "2"))(5, numbers)
    assert named is not None
    assert named.tolist() == [7, 2] * 12 + [7]
    assert Labels(())(5, numbers) is None
    assert [str(Labels(DIGITS)), str(Labels(DIGITS, "random", ("3", "5"))), str(Labels(()))] == [
        "in turn, of all classes",
        "random, of 3, 5",
        "none",
    ]
    with pytest.raises(UserError, match=r"^no class 'catt' \(did you mean 'cat'\?\); known: cat, dog$"):
        Labels(("cat", "dog"), named=("catt",))


def test_random_labels_are_uniform_independent_and_keyed_by_seed_and_number() -> None:
    rule = Labels(DIGITS, "random")
    count = 50_000
    labels = rule(3, torch.arange(count))
    assert labels is not None
    pairs = labels[:-1] * 10 + labels[1:]
    for found, cells in ((labels, 10), (pairs, 100)):
        seen = torch.bincount(found, minlength=cells).double()
        expected = len(found) / cells
        squares = float((seen - expected).square().sum() / expected)
        freedom = cells - 1
        assert abs(squares - freedom) < 3.3 * (2 * freedom) ** 0.5
    some = torch.tensor([49_999, 3, 17, 3])
    assert torch.equal(rule(3, some), labels[some])  # type: ignore[arg-type]
    other = rule(4, torch.arange(count))
    assert other is not None
    assert abs(float((other == labels).double().mean()) - 0.1) < 0.006
    named = Labels(DIGITS, "random", ("9", "1"))(3, torch.arange(count))
    assert named is not None
    assert sorted(set(named.tolist())) == [1, 9]
    assert abs(float((named == 9).double().mean()) - 0.5) < 0.01
