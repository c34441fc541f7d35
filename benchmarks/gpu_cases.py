"""Cases for the comparison of GPU and CPU: every component of the libraries as a function of the device."""

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
    Quantity,
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
    ExponentialEuler,
    Field,
    Heun,
    Hutchinson,
    Keyed,
    KLEta,
    LearnedAncestral,
    Mean,
    Midpoint,
    OneStep,
    Sigma,
    StochasticHeun,
    Tweedie,
    Window,
    adaptive,
    grids,
    log_likelihood,
    log_probs,
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
    def loss(quantity: type[Quantity], d: torch.device) -> Tensor:
        return Matching(path, quantity, Velocity)(model, x.to(d), eps.to(d), t.to(d))

    cases: dict[str, Case] = {f"loss of {q.__name__}": partial(loss, q) for q in (Velocity, Noise, Score, Data)}
    return cases | {"hybrid loss": lambda d: Hybrid(path)(doubled, x.to(d), eps.to(d), t.to(d))}


def _walk(solver: Any, last: OneStep | None, d: torch.device) -> Tensor:
    return sample(solver, x.to(d), TIMES, last)


def _odes(path: Interpolant) -> dict[str, Case]:
    v = Matching(path).field(model)
    solvers: dict[str, Any] = {s.__name__: s(v) for s in (Euler, Midpoint, Heun, RK4)}
    solvers |= {"DDIM": DDIM(v, path), "Exponential": Exponential(v, path)}
    cases: dict[str, Case] = {name: partial(_walk, solver, Tweedie(v, path)) for name, solver in solvers.items()}
    for to in (Linear(), VP()):
        cases[f"reparametrised to {to}"] = partial(_at, partial(_of_any, reparametrise(v, path, to)))
    cases["measured grid"] = lambda d: grids.measured(path, 4, velocity=v, x=x.to(d), interval=(0.05, 0.95))
    cases["plan"] = partial(_planned, path, None)
    return cases


def _sdes(path: Interpolant) -> dict[str, Case]:
    v = Matching(path).field(model)
    curve = LossCurve((0.1, 0.5, 0.9), (1.0, 2.0, 3.0))
    cases: dict[str, Case] = {}
    for w in (Constant(), Sigma(path), KL(path), KLEta(path, 0.3, curve)):
        sde, name = SDE(v, path, w), type(w).__name__
        for noise in (Keyed(1, index), Brownian(1, index)):
            kind = f"{name}, {type(noise).__name__}"
            cases[f"EulerMaruyama, {kind}"] = partial(_walk, EulerMaruyama(sde, noise), Mean(sde))
            cases[f"StochasticHeun, {kind}"] = partial(_walk, StochasticHeun(sde, noise), None)
            cases[f"Exponential, {kind}"] = partial(_walk, Exponential(v, path, w, noise=noise), None)
            cases[f"ExponentialEuler, {kind}"] = partial(_walk, ExponentialEuler(v, path, w, noise=noise), None)
        cases[f"log-densities, {name}"] = partial(_densities, ExponentialEuler(v, path, w))
        cases[f"log-densities of Euler-Maruyama, {name}"] = partial(_densities, EulerMaruyama(sde))
        cases[f"plan, {name}"] = partial(_planned, path, w)
        cases[f"sdeint, {name}"] = partial(_sdeint, sde)
    windowed = SDE(v, path, Window(KL(path), (0.3, 0.6)))
    cases["window"] = partial(_walk, EulerMaruyama(windowed, Keyed(1, index)), Mean(windowed))
    cases["Ancestral"] = partial(_walk, Ancestral(v, path, Keyed(1, index)), None)
    cases["LearnedAncestral"] = partial(_walk, LearnedAncestral(doubled, path, Keyed(1, index)), None)
    return cases


def _densities(solver: Any, d: torch.device) -> Tensor:
    """Return log-densities of a trajectory, and of one step whose times differ by row."""
    there = x.to(d)
    path_of_states = [there.sin() * float(time) for time in TIMES]
    of_rows = solver.transition(there, (t * 0.9).to(d), (t * 0.9 + 0.05).to(d)).log_prob(eps.to(d))
    return torch.cat([log_probs(solver, path_of_states, TIMES), of_rows[None]])


def _sdeint(sde: SDE, d: torch.device) -> Tensor:
    return sdeint(sde, x.to(d), TIMES, method="heun", noise=Keyed(1, index))


def _planned(path: Interpolant, w: Any, d: torch.device) -> Tensor:
    v = Matching(path).field(model)
    made = plan(v, path, w=w, evaluations=6, interval=(0.05, 0.95), noise=Keyed(2, index))
    return sample(made.solver, x.to(d), made.times)


def _at(make: Callable[[torch.device], Field], d: torch.device) -> Tensor:
    return make(d)(x.to(d), t.to(d))


def _of_any(field: Field, d: torch.device) -> Field:
    return field


def _guided(interval: tuple[float, float], d: torch.device) -> Field:
    return ClassifierFree(model, y.to(d), 3, 2.0, interval)


def _adaptive(method: str, d: torch.device) -> Tensor:
    return adaptive(model, x.to(d), 0.1, 0.9, method=method)


def _fields() -> dict[str, Case]:
    z = _draw(ROWS, 2, seed=2)

    def world(d: torch.device) -> Mixture:
        return Mixture(*(part.to(d) for part in (torch.ones(2), _draw(2, 2), torch.eye(2).expand(2, 2, 2) / 10)))

    def exact(name: str, d: torch.device) -> Tensor:
        field: Field = getattr(world(d), name)(GVP())
        return field(z.to(d), t.to(d))

    def better(d: torch.device) -> Field:
        labelled = Conditional(model, y.to(d))
        return Autoguidance(labelled, labelled, 2.0, (0.3, 0.6))

    cases: dict[str, Case] = {f"adaptive {method}": partial(_adaptive, method) for method in ("dopri5", "rk4")}
    cases["solve_each"] = lambda d: solve_each(Conditional(model, y.to(d)), x.to(d), 0.1, 0.9)
    for interval in ((0.0, 1.0), (0.3, 0.6), (0.95, 1.0)):
        cases[f"guidance in {interval}"] = partial(_at, partial(_guided, interval))
    cases["autoguidance"] = partial(_at, better)
    for name in ("velocity", "data", "noise", "score"):
        cases[f"mixture, {name}"] = partial(exact, name)
    cases["likelihood, exact"] = lambda d: log_likelihood(world(d).velocity(Linear()), z.to(d)).log_prob
    cases["likelihood, Hutchinson"] = lambda d: (
        log_likelihood(world(d).velocity(Linear()), z.to(d), divergence=Hutchinson(4, 0)).log_prob
    )
    return cases


def _streams() -> dict[str, Case]:
    def drawn(each: Callable[[Tensor], Tensor], d: torch.device) -> Tensor:
        return each(t.to(d))

    times = (Stratified(), LogitNormal(), Shifted(Stratified(LogitNormal()), 3.0), Grid())
    cases: dict[str, Case] = {f"times, {each}": partial(drawn, each) for each in times}
    cases["optimal transport"] = lambda d: OptimalTransport(3, classwise=True)(x.to(d), eps.to(d), y.to(d))
    key = philox.key(3, 5)
    cases["philox words"] = lambda d: philox.words(key, torch.arange(1000).to(d), 33)
    cases["philox normal"] = lambda d: philox.normal(key, torch.arange(1000).to(d), (33,))
    return cases


def _networks() -> dict[str, Case]:
    sizes: dict[str, Any] = {"input_size": 8, "patch_size": 2, "in_channels": 2, "hidden_size": 64, "num_heads": 4}
    big = _draw(ROWS, 2, 8, 8)

    def output(make: Callable[..., Any], gradient: bool, d: torch.device) -> Tensor:
        torch.manual_seed(0)
        network: nn.Module = make(**sizes, depth=3, num_classes=3)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.05)
        out: Tensor = network.to(d)(big.to(d), t.to(d), y.to(d))
        if not gradient:
            return out.detach()
        out.square().mean().backward()  # type: ignore[no-untyped-call]
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    return {
        f"{make.__name__}, {'gradient' if gradient else 'output'}": partial(output, make, gradient)
        for make in (SiT, dit)
        for gradient in (False, True)
    }
