"""Laws of guidance."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sitkit.samplers import ClassifierFree, Counted


def network(x: Tensor, t: Tensor, /, *, y: Tensor) -> Tensor:
    """Stand in for a conditional network: each label its own field."""
    return x * (1 + y.reshape(-1, *[1] * (x.ndim - 1))) + t.reshape(-1, *[1] * (x.ndim - 1))


@given(st.floats(-2, 6), st.integers(0, 99), st.booleans())
def test_guidance_is_the_mixture_of_the_two_fields(scale, seed, own_null) -> None:  # type: ignore[no-untyped-def]
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    t, y = torch.full((4,), 0.3, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    null = torch.full((4,), 9) if own_null else 9
    conditional, unconditional = network(x, t, y=y), network(x, t, y=torch.full((4,), 9))
    mixture = unconditional + scale * (conditional - unconditional)
    torch.testing.assert_close(ClassifierFree(network, y, null, scale)(x, t), mixture)
    first = ClassifierFree(network, y, null, scale, channels=1)(x, t)
    torch.testing.assert_close(first[:, :1], mixture[:, :1])
    torch.testing.assert_close(first[:, 1:], conditional[:, 1:])


def test_guidance_acts_in_its_interval_only_and_costs_two_rows_there() -> None:
    x, y = torch.randn(5, 2), torch.arange(5)
    t = torch.tensor([0.1, 0.2, 0.5, 0.8, 0.9])
    counted = Counted(network)
    guided = ClassifierFree(counted, y, 9, 3.0, interval=(0.2, 0.8))(x, t)
    assert (counted.calls, counted.rows) == (1, 5 + 3)
    everywhere = ClassifierFree(network, y, 9, 3.0)(x, t)
    inside = (t >= 0.2) & (t <= 0.8)
    torch.testing.assert_close(guided[inside], everywhere[inside])
    assert torch.equal(guided[~inside], network(x, t, y=y)[~inside])
    nulls = torch.tensor([9, 8, 7, 6, 5])
    own = ClassifierFree(network, y, nulls, 3.0, interval=(0.2, 0.8))(x, t)
    torch.testing.assert_close(own[inside], ClassifierFree(network, y, nulls, 3.0)(x, t)[inside])


def test_guidance_of_scale_one_is_the_conditional_field_at_its_cost() -> None:
    x, t, y = torch.randn(5, 2), torch.full((5,), 0.5), torch.arange(5)
    counted = Counted(network)
    assert torch.equal(ClassifierFree(counted, y, 9, 1.0)(x, t), network(x, t, y=y))
    assert counted.rows == 5


def test_guidance_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="low <= high"):
        ClassifierFree(network, torch.arange(3), 9, 2.0, interval=(0.7, 0.2))
    with pytest.raises(ValueError, match="3 labels, and x has 2 rows"):
        ClassifierFree(network, torch.arange(3), 9, 2.0)(torch.zeros(2, 2), torch.zeros(2))


def test_guidance_acts_at_all_times_unless_told_and_at_one_time_if_told() -> None:
    x, y, t = torch.randn(3, 2), torch.arange(3), torch.tensor([0.0, 0.5, 1.0])
    mixture = network(x, t, y=torch.full((3,), 9)) * -1 + 2 * network(x, t, y=y)
    torch.testing.assert_close(ClassifierFree(network, y, 9, 2.0)(x, t), mixture)
    once = ClassifierFree(network, y, 9, 2.0, interval=(0.5, 0.5))(x, t)
    torch.testing.assert_close(once[1], mixture[1])
    torch.testing.assert_close(once[::2], network(x, t, y=y)[::2])
