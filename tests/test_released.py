"""Released networks under every sampler, against independent computations."""

import itertools
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latent_caches import small
from released import LOADERS, convert, sitkit, states, weights
from sitkit.backbones import SiT, load_sit
from sitkit.interpolants import DDPM
from sitkit.recipes.data.images import to_pixels
from sitkit.recipes.data.latents import vae
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.support.random_streams import Stream, noise
from sitkit.samplers import Keyed, grids


def assert_near(one: Tensor, other: Tensor) -> None:
    """Assert equality to 1e-5 of the largest value."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


SAMPLERS = {
    "sit": [[], ["sampler.solver=heun"], ["sampler.kind=sde"], ["sampler.kind=sde", "sampler.solver=euler_maruyama"]],
    "dit": [
        [],
        ["sampler.solver=ddim", "sampler.times=timesteps"],
        ["sampler.solver=heun"],
        ["sampler.kind=sde", "sampler.w.kind=kl"],
        ["sampler.kind=sde", "sampler.solver=learned_ancestral", "sampler.times=timesteps"],
        ["sampler.kind=sde", "sampler.solver=ancestral"],
        ["sampler.kind=sde", "sampler.solver=euler_maruyama", "sampler.times=uniform"],
    ],
}


@pytest.mark.parametrize("family", LOADERS)
def test_every_sampler_generates_pixels_from_the_command_line(family: str, tmp_path: Path) -> None:
    folder = small(tmp_path / "vae", seed=0)
    run = convert(tmp_path, family, "--vae", folder, in_channels=2)
    scales = ["guidance.scale=1.0", "guidance.scale=1.5"]
    drawn = []
    for number, chosen in enumerate([*SAMPLERS[family], ["guidance.channels=1"]]):
        sets = [part for one in (*chosen, scales[number > 0], "sampler.steps=4") for part in ("--set", one)]
        file = tmp_path / f"{number}.npz"
        code, said = sitkit("sample", run.folder, "--num", 6, "--labels", "balanced", "--out", file, *sets)
        assert code == 0, said
        assert np.load(file)["labels"].tolist() == [0, 1, 2, 3, 4, 0]
        drawn.append(np.load(file)["arr_0"].astype(int))
        assert drawn[-1].shape == (6, 8, 8, 3)
    assert all(np.abs(one - other).max() > 1 for n, one in enumerate(drawn) for other in drawn[:n])
    assert sitkit("sample", run.folder, "--num", 2, "--out", tmp_path / "x.png", "--label", "3")[0] == 0
    model, x = vae.load(str(folder)), torch.randn(2, 2, 4, 4)
    with torch.no_grad():
        assert torch.equal(run.recipe().data.build().decode(x), to_pixels(model.decode(x / 0.18215).sample))


def guided(network: SiT, scale: float, y: Tensor) -> Callable[[Tensor, float], Tensor]:
    """Return the official guidance of the first three channels; the others and the variance stay conditional."""

    def ask(x: Tensor, t: float) -> Tensor:
        times = torch.full((len(x),), t)
        both = network.full(torch.cat([x, x]), torch.cat([times, times]), torch.cat([y, torch.full_like(y, 5)]))
        output, null = both.chunk(2)
        return torch.cat([null[:, :3] + scale * (output[:, :3] - null[:, :3]), output[:, 3:]], dim=1)

    return ask


OFFICIAL = ["guidance.channels=3", "sampler.times=uniform", "sampler.last=none"]


@pytest.mark.parametrize("scale", [1.0, 1.5])
@torch.no_grad()
def test_sit_is_the_velocity_from_noise_to_data(scale: float, tmp_path: Path) -> None:
    run = convert(tmp_path, "sit")
    ask = guided(load_sit(weights(), num_heads=2), scale, torch.arange(3))
    start = x = noise(5, Stream.START, torch.arange(3), (4, 4, 4))
    for step in range(8):
        x = x + ask(x, step / 8)[:, :4] / 8
    settings = [*OFFICIAL, f"guidance.scale={scale}", "sampler.steps=8"]
    assert_near(states(run, *settings, "sampler.solver=euler"), x)
    keyed, w, h, x = Keyed(5, torch.arange(3)), 2.0, 0.96 / 7, start
    for step in range(7):  # the official SDE with D = sigma, w = 2 sigma; then its last step
        t = step * h
        v = ask(x, t)[:, :4]
        score = (t * v - x) / (1 - t)
        ends = grids.uniform(DDPM(), 7, interval=(0.0, 0.96))[step : step + 2]
        x = x + h * (v + (1 - t) * score) + (w * (1 - t) * h) ** 0.5 * keyed(x, *ends)
    v = ask(x, 0.96)[:, :4]
    x = x + 0.04 * (v + 0.04 * (0.96 * v - x) / 0.04)
    settings += ["sampler.kind=sde", "sampler.solver=euler_maruyama", "sampler.w.scale=2.0", "sampler.last=mean"]
    assert_near(states(run, *settings, "sampler.interval=[0.0,1.0]", "sampler.last_step=0.04"), x)


def chain(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return DiT's timesteps (count,) in order of sampling, with alpha-bar at each and at the next one."""
    bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    timesteps = torch.tensor([round(k * 999 / (count - 1)) for k in range(count)]).flip(0)
    here = bars[timesteps]
    return timesteps, here, torch.cat([here[1:], torch.ones(1, dtype=torch.float64)])


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize("solver", ["learned_ancestral", "ddim"])
@torch.no_grad()
def test_dit_is_the_chain_of_its_timesteps(solver: str, scale: float, tmp_path: Path) -> None:
    """Ho et al., eq. 7, with the variance of Nichol and Dhariwal, eq. 15; and Song et al., eq. 12 with eta = 0."""
    count, run = 20, convert(tmp_path, "dit")
    ask, keyed = guided(load_sit(weights(), num_heads=2), scale, torch.arange(3)), Keyed(5, torch.arange(3))
    timesteps, bars, nexts = chain(count)
    x = noise(5, Stream.START, torch.arange(3), (4, 4, 4)).double() * (1 - bars[0]) ** 0.5  # this package's start
    for k, bar, later in zip(timesteps.tolist(), bars, nexts, strict=True):
        eps, between = (part.double() for part in ask(x.float(), k).chunk(2, dim=1))
        data = (x - (1 - bar) ** 0.5 * eps) / bar**0.5
        if solver == "ddim":
            x = later**0.5 * data + (1 - later) ** 0.5 * eps
            continue
        beta = 1 - bar / later
        mean = later**0.5 * beta / (1 - bar) * data + (bar / later) ** 0.5 * (1 - later) / (1 - bar) * x
        if later == 1:
            x = mean
            break
        share = (between + 1) / 2
        log_variance = share * beta.log() + (1 - share) * (beta * (1 - later) / (1 - bar)).log()
        place = 1 - (torch.tensor([k, timesteps[timesteps < k].max()], dtype=torch.float64) + 1) / 1000
        x = mean + (log_variance / 2).exp() * keyed(x, *place)
    kind = "sde" if solver == "learned_ancestral" else "ode"
    settings = [f"sampler.kind={kind}", f"sampler.solver={solver}", "sampler.times=timesteps", f"sampler.steps={count}"]
    drawn = states(run, *settings, f"guidance.scale={scale}", "guidance.channels=3")
    assert_near(drawn.double(), x)


@pytest.mark.parametrize("count", [2, 7, 250, 1000])
def test_timesteps_are_those_of_the_chain(count: int) -> None:
    assert torch.equal(grids.timesteps(DDPM(), count), DDPM().times(count))
    with pytest.raises(ValueError, match="there are 5 timesteps, got steps = 6"):
        grids.timesteps(DDPM(), 6, count=5)


def test_ancestral_noise_is_keyed_by_the_sample_number(tmp_path: Path) -> None:
    run, settings = convert(tmp_path, "dit"), ["sampler.solver=ancestral", "sampler.steps=3"]
    whole, part = (states(run, "sampler.kind=sde", *settings, count=count) for count in (3, 2))
    assert_near(part, whole[:2])
    with pytest.raises(UserError, match="solver 'ancestral' does not fit kind"):
        states(run, *settings)


def test_a_dit_without_learned_variance_runs_as_well(tmp_path: Path) -> None:
    run = convert(tmp_path, "dit", learn_sigma=False)
    one, other = (states(run, "sampler.steps=3", f"sampler.kind={kind}") for kind in ("ode", "sde"))
    assert one.isfinite().all()
    assert not torch.equal(one, other)


def commands() -> list[list[str]]:
    """Return the arguments of the commands in the page of published results."""
    page = (Path(__file__).parent.parent / "docs" / "reproduce.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for line in "\n".join(blocks).splitlines()]


@pytest.mark.slow
def test_the_commands_of_the_page_of_published_results_run(tmp_path: Path) -> None:
    """Each command runs unchanged on small networks of pixels, with its stated 250 NFE."""
    for family in LOADERS:
        (tmp_path / family).mkdir()
    runs = {family: convert(tmp_path / family, family, in_channels=3, depth=1) for family in LOADERS}
    sampled = 0
    for words in commands():
        settings = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
        if "train" in words:
            read_recipe(words[words.index("train") + 1], settings)
        if words[:2] == ["sitkit", "sample"]:
            run, out = runs["dit" if "dit" in words[2] else "sit"], words.index("--out")
            assert words[3:7] == ["--samples", "50000", "--labels", "random"]
            assert out == len(words) - 2
            code, said = sitkit("sample", run.folder, *words[3:out], "--num", 1, "--out", tmp_path / "x.npz")
            rows = 500 if "guidance.scale=1.5" in settings else 250
            assert (code, f"250 NFE, {rows} network rows" in said) == (0, True), said
            sampled += 1
    assert sampled == 10
