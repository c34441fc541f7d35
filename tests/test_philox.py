"""The generator behind all keyed randomness."""

import math

import pytest
import torch

from sitkit.samplers import philox


@pytest.mark.parametrize(  # the known answers of the Random123 distribution
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_known_answers(counter: str, key: str, words: str) -> None:
    numbers, (one, other), answer = ([int(word, 16) for word in text.split()] for text in (counter, key, words))
    c0, c1, c2, c3 = numbers
    assert philox.philox((c0, c1, c2, c3), (one, other)) == tuple(answer)
    t0, t1, t2, t3 = torch.tensor(numbers)[:, None]
    assert [int(word) for word in philox.philox((t0, t1, t2, t3), (one, other))] == answer


def test_uniform_numbers_are_uniform_and_below_one() -> None:
    u = philox.uniform(philox.key(0, 1), torch.arange(100_000))
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u, 50, 0, 1)
    assert ((counts - 2000) ** 2 / 2000).sum() < 95  # chi squared, 49 degrees of freedom, p < 1e-4


def test_a_longer_draw_continues_a_shorter_one() -> None:
    key, index = philox.key(7, 3), torch.arange(4)
    long = philox.normal(key, index, (11,))
    for count in (1, 4, 7):
        assert torch.equal(philox.normal(key, index, (count,)), long[:, :count])


def test_keys_differ_in_all_their_bits() -> None:
    keys = {philox.key(seed, a, b) for seed in (0, 1, 2**32, 2**63) for a in (0, 1, 2**40) for b in (0, 5)}
    assert len(keys) == 4 * 3 * 2


def test_uniform_numbers_are_the_first_words() -> None:
    key, index = philox.key(3, 1), torch.arange(50)
    assert torch.equal(philox.uniform(key, index), (philox.words(key, index, 4)[:, 0] >> 8) / 2.0**24)


def test_a_word_of_zero_is_a_normal_number_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(philox, "words", lambda key, index, count: torch.zeros(len(index), count, dtype=torch.long))
    normal = philox.normal(philox.key(0, 0), torch.arange(2), (2,))
    torch.testing.assert_close(normal[:, 0], torch.full((2,), (64 * math.log(2)) ** 0.5, dtype=torch.float64))
