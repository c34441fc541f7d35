"""Philox, the counter-based generator of all keyed random numbers."""

import itertools
import math
from functools import partial

import pytest
import torch

from sitkit.recipes.support import random_streams
from sitkit.recipes.support.random_streams import Stream
from sitkit.samplers import Brownian, Hutchinson, Keyed, initial_noise, philox


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


def test_uniform_numbers_are_the_first_words_of_philox() -> None:
    key, index = philox.key(3, 1), torch.arange(50)
    assert torch.equal(philox.uniform(key, index), (philox.words(key, index, 4)[:, 0] >> 8) / 2.0**24)


def test_a_word_of_zero_is_a_normal_number_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        philox, "words_of_keys", lambda keys, index, count: torch.zeros(1, len(index), count, dtype=torch.long)
    )
    normal = philox.normal(philox.key(0, 0), torch.arange(2), (2,))
    torch.testing.assert_close(normal[:, 0], torch.full((2,), (64 * math.log(2)) ** 0.5, dtype=torch.float64))


def test_no_two_streams_ever_ask_for_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers of two domains differ in a word of the counter, so they are distinct for every key."""
    seen: set[tuple[int, ...]] = set()
    plain = philox.philox

    def watched(counter, key):  # type: ignore[no-untyped-def]
        if isinstance(counter[0], torch.Tensor):
            words = torch.broadcast_tensors(*counter, *(torch.as_tensor(word) for word in key))  # type: ignore[no-untyped-call]
            seen.update(map(tuple, torch.stack(words, -1).flatten(0, -2).tolist()))
        return plain(counter, key)

    monkeypatch.setattr(philox, "philox", watched)
    index, x, t = torch.arange(3), torch.zeros(3, 5), torch.tensor(0.0)
    smallest = torch.tensor(5e-324, dtype=torch.float64)  # its bits are those of the number 1
    streams = {
        "start": lambda seed: initial_noise(seed, index, (5,)),
        "steps": lambda seed: [Keyed(seed, index)(x, *ends) for ends in ((t, t), (t, t + 0.5), (smallest, t))],
        "brownian": lambda seed: Brownian(seed, index)(x, t, t + 0.25),
        "probes": lambda seed: Hutchinson(12, seed, index).vectors(x),
        **{f"recipes' {stream.name}": partial(of_recipes, stream, index) for stream in Stream},
    }
    asked = {}
    for name, draw in streams.items():
        seen.clear()
        for seed in (0, 1, 2**63 + 5):
            draw(seed)  # type: ignore[operator]
        asked[name] = set(seen)
    for (one, its), (other, others) in itertools.combinations(asked.items(), 2):
        assert its, one
        assert its.isdisjoint(others), (one, other)
        assert {key for *_, low, high in its for key in [(low, high)]}.isdisjoint((a, b) for *_, a, b in others)
        if not one.startswith("recipes"):
            assert {words[1] for words in its}.isdisjoint(words[1] for words in others), (one, other)
    domains = {name: {words[1] for words in its} for name, its in asked.items()}
    assert all(len(domain) == 1 for domain in domains.values())


def of_recipes(stream: Stream, index: torch.Tensor, seed: int) -> object:
    """Draw from a stream of the recipes."""
    if stream == Stream.ORDER:
        return random_streams.Permutation(seed, 5)(torch.arange(12))
    return random_streams.noise(seed, stream, index, (5,))


def test_streams_of_recipes_are_those_that_runs_were_trained_with() -> None:
    key = philox.key(3, Stream.NOISE)
    assert key == (3299888750, 3373051199, 0)
    assert philox.words(key, torch.tensor([2**40 + 1]), 3).tolist() == [[3273126303, 2667195914, 2589957919]]
