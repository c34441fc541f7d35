"""Every part of the libraries that takes tensors, as a function of the device that computes it."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sitkit.backbones import Mixture, SiT, dit
from sitkit.interpolants import DDPM, GVP, VP, Interpolant, Linear
from sitkit.objectives import (
    Data,
    Grid,
    Hybrid,
    LogitNormal,
    LossCurve,
    Matching,
    Noise,
    OptimalTransport,
    Score,
    Shifted,
    Stratified,
    Velocity,
)
from sitkit.samplers import (
    DDIM,
    KL,
    RK4,
    SDE,
    Ancestral,
    Autoguidance,
    Brownian,
    ClassifierFree,
    Conditional,
    Constant,
    Euler,
    EulerMaruyama,
    Exponential,
    Heun,
    Hutchinson,
    Keyed,
    KLEta,
    LearnedAncestral,
    Mean,
    Midpoint,
    Sigma,
    StochasticHeun,
    Tweedie,
    adaptive,
    grids,
    log_likelihood,
    philox,
    plan,
    reparametrise,
    sample,
    sdeint,
    solve_each,
)

Case: TypeAlias = Callable[[torch.device], Tensor]
PATHS: tuple[Interpolant, ...] = (Linear(), GVP(), VP(), DDPM())
TIMES = torch.tensor([0.125, 0.3125, 0.5, 0.75, 0.875], dtype=torch.float64)
ROWS = 6


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


x, eps, t = _draw(ROWS, 2, 4, 4), _draw(ROWS, 2, 4, 4, seed=1), torch.linspace(0.1, 0.9, ROWS)
y, index = torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(ROWS)


def model(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    """A network of states, times and labels."""
    share = t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
    return x.cos() * share if y is None else x.cos() * share * (1 + y.to(x.dtype)).reshape(share.shape)


def doubled(x: Tensor, t: Tensor) -> Tensor:
    """A network with a variance."""
    return torch.cat([model(x, t), x.sin()], 1)


def cases() -> dict[str, Case]:
    """Return all cases by name."""
    found: dict[str, Case] = {}
    for path in PATHS:
        named = {**_objectives(path), **_odes(path), **_sdes(path)}
        found |= {f"{type(path).__name__}: {name}": case for name, case in named.items()}
    return found | _fields() | _streams() | _networks()


def _objectives(path: Interpolant) -> dict[str, Case]:
    cases: dict[str, Case] = {
        f"loss of {q.__name__}": lambda d, q=q: Matching(path, q, Velocity)(model, x.to(d), eps.to(d), t.to(d))
        for q in (Velocity, Noise, Score, Data)
    }
    cases["hybrid loss"] = lambda d: Hybrid(path)(doubled, x.to(d), eps.to(d), t.to(d))
    return cases


def _odes(path: Interpolant) -> dict[str, Case]:
    v = Matching(path).field(model)
    solvers: dict[str, Any] = {s.__name__: s(v) for s in (Euler, Midpoint, Heun, RK4)}
    solvers |= {"DDIM": DDIM(v, path), "Exponential": Exponential(v, path)}
    cases: dict[str, Case] = {
        name: lambda d, s=s: sample(s, x.to(d), TIMES, Tweedie(v, path)) for name, s in solvers.items()
    }
    for to in (Linear(), VP()):
        cases[f"reparametrised to {to}"] = lambda d, to=to: reparametrise(v, path, to)(x.to(d), t.to(d))
    cases["measured grid"] = lambda d: grids.measured(path, 4, velocity=v, x=x.to(d), interval=(0.05, 0.95))
    cases["plan"] = lambda d: _planned(path, None, d)
    return cases


def _sdes(path: Interpolant) -> dict[str, Case]:
    v = Matching(path).field(model)
    curve = LossCurve((0.1, 0.5, 0.9), (1.0, 2.0, 3.0))
    cases: dict[str, Case] = {}
    for w in (Constant(), Sigma(path), KL(path), KLEta(path, 0.3, curve)):
        sde, name = SDE(v, path, w), type(w).__name__
        for noise in (Keyed(1, index), Brownian(1, index)):
            kind = f"{name}, {type(noise).__name__}"
            cases[f"EulerMaruyama, {kind}"] = lambda d, sde=sde, noise=noise: sample(
                EulerMaruyama(sde, noise), x.to(d), TIMES, Mean(sde)
            )
            cases[f"StochasticHeun, {kind}"] = lambda d, sde=sde, noise=noise: sample(
                StochasticHeun(sde, noise), x.to(d), TIMES
            )
            cases[f"Exponential, {kind}"] = lambda d, w=w, noise=noise: sample(
                Exponential(v, path, w, noise=noise), x.to(d), TIMES
            )
        cases[f"plan, {name}"] = lambda d, w=w: _planned(path, w, d)
        cases[f"sdeint, {name}"] = lambda d, sde=sde: sdeint(sde, x.to(d), TIMES, method="heun", noise=Keyed(1, index))
    cases["Ancestral"] = lambda d: sample(Ancestral(v, path, Keyed(1, index)), x.to(d), TIMES)
    cases["LearnedAncestral"] = lambda d: sample(LearnedAncestral(doubled, path, Keyed(1, index)), x.to(d), TIMES)
    return cases


def _planned(path: Interpolant, w: Any, device: torch.device) -> Tensor:
    v = Matching(path).field(model)
    made = plan(v, path, w=w, evaluations=6, interval=(0.05, 0.95), noise=Keyed(2, index))
    return sample(made.solver, x.to(device), made.times)


def _fields() -> dict[str, Case]:
    def world(d: torch.device) -> Mixture:
        return Mixture(*(part.to(d) for part in (torch.ones(2), _draw(2, 2), torch.eye(2).expand(2, 2, 2) / 10)))

    z = _draw(ROWS, 2, seed=2)
    cases: dict[str, Case] = {
        f"adaptive {method}": lambda d, method=method: adaptive(model, x.to(d), 0.1, 0.9, method=method)
        for method in ("dopri5", "rk4")
    }
    cases["solve_each"] = lambda d: solve_each(Conditional(model, y.to(d)), x.to(d), 0.1, 0.9)
    for interval in ((0.0, 1.0), (0.3, 0.6), (0.95, 1.0)):
        cases[f"guidance in {interval}"] = lambda d, i=interval: ClassifierFree(model, y.to(d), 3, 2.0, i)(
            x.to(d), t.to(d)
        )
    cases["autoguidance"] = lambda d: Autoguidance(
        Conditional(model, y.to(d)), Conditional(model, y.to(d)), 2.0, (0.3, 0.6)
    )(x.to(d), t.to(d))
    for name in ("velocity", "data", "noise", "score"):
        cases[f"mixture, {name}"] = lambda d, name=name: getattr(world(d), name)(GVP())(z.to(d), t.to(d))
    cases["likelihood, exact"] = lambda d: log_likelihood(world(d).velocity(Linear()), z.to(d)).log_prob
    cases["likelihood, Hutchinson"] = lambda d: (
        log_likelihood(world(d).velocity(Linear()), z.to(d), divergence=Hutchinson(4, 0)).log_prob
    )
    return cases


def _streams() -> dict[str, Case]:
    times = (Stratified(), LogitNormal(), Shifted(Stratified(LogitNormal()), 3.0), Grid())
    cases: dict[str, Case] = {f"times, {each}": lambda d, each=each: each(t.to(d)) for each in times}
    cases["optimal transport"] = lambda d: OptimalTransport(3, classwise=True)(x.to(d), eps.to(d), y.to(d))
    key = philox.key(3, 5)
    cases["philox words"] = lambda d: philox.words(key, torch.arange(1000).to(d), 33)
    cases["philox normal"] = lambda d: philox.normal(key, torch.arange(1000).to(d), (33,))
    return cases


def _networks() -> dict[str, Case]:
    sizes: dict[str, int] = {"input_size": 8, "patch_size": 2, "in_channels": 2, "hidden_size": 64, "num_heads": 4}
    big = _draw(ROWS, 2, 8, 8)

    def output(make: Callable[..., SiT], gradient: bool, d: torch.device) -> Tensor:
        torch.manual_seed(0)
        network = make(**sizes, depth=3, num_classes=3)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.05)
        out = network.to(d)(big.to(d), t.to(d), y.to(d))
        if not gradient:
            return out.detach()
        out.square().mean().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    return {
        f"{make.__name__}, {'gradient' if gradient else 'output'}": partial(output, make, gradient)
        for make in (SiT, dit)
        for gradient in (False, True)
    }
