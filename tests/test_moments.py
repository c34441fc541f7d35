"""Moments of features that come in batches, on several processes."""

import math
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from sitkit.recipes.metrics import Moments, frechet_distance, moments
from worlds import drawn


def assert_moments_of(seen: Moments, x: torch.Tensor) -> None:
    assert_moments(seen.count, seen.mean, seen.covariance, x.double())


def assert_moments(count: int, mean: torch.Tensor, covariance: torch.Tensor, x: torch.Tensor) -> None:
    """Assert that moments are those of points, to 1e-12 of the standard deviations."""
    expected = torch.cov(x.T).reshape(x.shape[1], x.shape[1])
    widths = expected.diagonal().sqrt()
    assert count == len(x)
    assert mean.dtype == covariance.dtype == torch.float64
    assert ((covariance - expected).abs() <= 1e-12 * torch.outer(widths, widths)).all()
    assert torch.allclose(mean, x.mean(0), rtol=1e-14, atol=1e-14)


def seen_in(batches: list[torch.Tensor]) -> Moments:
    seen = Moments(batches[0].shape[1])
    for batch in batches:
        seen.update(batch)
    return seen


@given(st.lists(st.integers(0, 17), min_size=1, max_size=8), st.integers(1, 5), st.sampled_from([0.0, 1e3, -1e7]))
def test_moments_do_not_depend_on_batches(sizes: list[int], features: int, mean: float) -> None:
    batches = [drawn(size, features, seed, mean) for seed, size in enumerate([3, *sizes])]
    x = torch.cat(batches)
    assert_moments_of(seen_in(batches), x)
    assert_moments_of(seen_in(list(torch.split(x, 1))), x)
    for cut in range(len(batches) + 1):
        empty = x[:0]
        one, other = seen_in([empty, *batches[:cut]]), seen_in([empty, *batches[cut:]])
        before = other.count
        one.merge(other)
        assert_moments_of(one, x)
        assert other.count == before
        one.update(x + 1)
        assert_moments_of(one, torch.cat([x, x + 1]))


def test_moments_of_batches_that_differ_more_than_points_do() -> None:
    batches = [drawn(50, 3, seed, mean=1e6 * seed * seed, scale=1e-3) for seed in range(6)]
    assert_moments_of(seen_in(batches), torch.cat(batches))
    assert_moments_of(seen_in(batches[::-1]), torch.cat(batches))


def test_moments_take_features_of_any_dtype_and_leave_them_and_each_other_alone() -> None:
    x = (drawn(30, 4, 0, mean=100.0)).half()
    copy = x.clone()
    seen = seen_in([x[:20], x[20:].float().requires_grad_()])
    assert_moments_of(seen, x)
    assert torch.equal(x, copy)
    twin = Moments(4)
    twin.merge(seen)
    twin.update(x + 1)
    assert_moments_of(seen, x)
    assert_moments_of(twin, torch.cat([x, x + 1]))
    assert_moments_of(seen.reduce(), x)
    assert seen.reduce() is not seen
    twin = Moments(4)
    twin.merge(seen)
    twin.merge(twin)
    assert_moments_of(twin, torch.cat([x, x]))
    mean, covariance = moments(x)
    assert frechet_distance(seen.mean, seen.covariance, mean, covariance) == pytest.approx(0, abs=1e-9)


def test_moments_refuse_bad_features() -> None:
    seen = Moments(3)
    seen.merge(Moments(3))
    assert seen.reduce().count == 0
    with pytest.raises(ValueError, match="there are no features yet"):
        _ = seen.mean
    with pytest.raises(ValueError, match="at least two feature vectors, got 0"):
        _ = seen.covariance
    seen.update(torch.ones(1, 3))
    with pytest.raises(ValueError, match="at least two feature vectors, got 1"):
        _ = seen.covariance
    for wrong in (torch.ones(2, 4), torch.ones(3), torch.ones(2, 3, 1)):
        with pytest.raises(ValueError, match=r"expected features \(B, 3\)"):
            seen.update(wrong)
    for broken in (math.nan, -math.inf):
        with pytest.raises(ValueError, match="not finite"):
            seen.update(torch.tensor([[1.0, 2.0, 3.0], [1.0, broken, 3.0]]))
    assert seen.count == 1
    with pytest.raises(ValueError, match="moments of 4 features cannot be merged into those of 3"):
        seen.merge(Moments(4))
    with pytest.raises(ValueError, match="number of features must be at least 1, got 0"):
        Moments(0)


def reduce_one(rank: int, world: int, folder: str) -> None:
    """Run one of the processes, all of which but the last have points."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    none = Moments(4).reduce()
    seen = Moments(4)
    if rank < world - 1:
        for part in torch.split(drawn(20 + rank, 4, rank, mean=1e5 * (rank + 1)), 7):
            seen.update(part)
    whole = seen.reduce()
    again = seen.reduce()
    assert again.mean.equal(whole.mean)
    torch.save((none.count, seen.count, whole.count, whole.mean, whole.covariance), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_moments_are_those_of_all_processes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, timeout=120)
    x = torch.cat([drawn(20 + rank, 4, rank, mean=1e5 * (rank + 1)) for rank in range(2)])
    for rank, own in enumerate((20, 21, 0)):
        none, seen, count, mean, covariance = torch.load(tmp_path / f"{rank}.pt")
        assert (none, seen) == (0, own)
        assert_moments(count, mean, covariance, x)


if __name__ == "__main__":  # the processes of the last test, forks of one that has imported all
    forks = [multiprocessing.get_context("fork").Process(target=reduce_one, args=(n, 3, sys.argv[1])) for n in range(3)]
    for fork in forks:
        fork.start()
    for fork in forks:
        fork.join()
    sys.exit(any(fork.exitcode for fork in forks))
