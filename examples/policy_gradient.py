"""Reinforcement learning: fine-tune a trained run to a reward by clipped policy gradients over the steps of an SDE."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

from sitkit.recipes import TrainedRun, load_run
from sitkit.recipes.metrics import frechet_distance, moments
from sitkit.samplers import KL, ExponentialEuler, log_probs, trajectory


def fine_tune(run: TrainedRun, reward: Callable[..., torch.Tensor], beta: float) -> Iterator[None]:
    """Change the network of the run in memory by Flow-GRPO (arXiv 2505.05470), for reward(images in [0, 1], labels)."""
    base, labels, times = load_run(run.folder), torch.arange(120) % 10, torch.linspace(*run.interval, 11)
    policy, reference = (ExponentialEuler(one.velocity(labels), run.path, KL(run.path)) for one in (run, base))
    optimizer = torch.optim.Adam(run.network.parameters(), lr=5e-5)
    while True:
        yield
        with torch.no_grad():
            states = trajectory(policy, torch.randn(120, *run.shape), times)
            old = log_probs(policy, states[:-1], times[:-1])  # the last step, to sigma = 0, has no density
            means = [reference.transition(states[n], times[n], times[n + 1]).mean for n in range(len(old))]
            rewards = reward(run.decode(states[-1]) / 255, labels).float().reshape(12, 10)
            advantage = ((rewards - rewards.mean(0)) / (rewards.std(0) + 1e-6)).flatten()  # within each class
        for n in torch.randperm(len(old)):
            step = policy.transition(states[n], times[n], times[n + 1])
            ratio = ((step.log_prob(states[n + 1]) - old[n]) / step.mean[0].numel()).exp()  # mean over dimensions
            gain = torch.minimum(ratio * advantage, ratio.clamp(0.99, 1.01) * advantage).mean()
            kl = ((step.mean - means[n]) ** 2 / (2 * step.std**2)).mean()  # from the network before training
            optimizer.zero_grad()
            (beta * kl - gain).backward()
            optimizer.step()


def main(folder: str, picture: Path, iterations: int = 20, seed: int = 0) -> None:
    (real, digits), figure = load_run(folder).heldout(), Figure((15, 4.6), layout="constrained")
    labels, data = torch.arange(900) % 10, moments(real.flatten(1) / 255)
    model = LogisticRegression(max_iter=1000).fit(real.flatten(1) / 255, digits)
    rewards: dict[str, Callable[..., torch.Tensor]] = {
        "ink in the upper half": lambda x, y: x[:, :, :4].mean((1, 2, 3)),
        "log p of the class": lambda x, y: torch.tensor(model.predict_log_proba(x.flatten(1)))[range(len(y)), y],
    }
    for row, (name, reward) in zip(figure.subplots(2, 5, width_ratios=(3, 3, 3, 2, 2)), rewards.items(), strict=True):
        for after, beta in (row[1], 0.2), (row[2], 0.0):
            torch.manual_seed(seed)
            run, curve = load_run(folder, {"guidance.scale": 1, "sampler.steps": 6}), list[tuple[float, float]]()
            for n, _ in zip(range(iterations + 1), fine_tune(run, reward, beta), strict=False):
                if n % 4 == 0:
                    x = run.sample(900, labels=labels) / 255  # by the ODE, always from the same noise
                    curve.append((float(reward(x, labels).mean()), frechet_distance(*moments(x.flatten(1)), *data)))
                    print(f"{name}, {beta = }, {n} iterations: reward %.3f, Frechet distance %.3f" % curve[-1])
                    grid, shown = after if n else row[0], torch.nn.functional.pad(x[:50], (0, 1, 0, 1), value=0.5)
                    grid.imshow(shown.reshape(5, 10, 9, 9).transpose(1, 2).reshape(45, 90).numpy(), cmap="gray")
                    grid.set(xticks=[], yticks=[], title=f"after {n} iterations, {beta = }")
            for panel, values in zip(row[3:], zip(*curve, strict=True), strict=True):
                panel.plot(range(0, iterations + 1, 4), values, ".-", label=f"{beta = }")
        row[0].set(title="before", ylabel=name)
        row[3].set(title=f"mean {name}", xlabel="iteration")
        row[4].set(title="Frechet distance", xlabel="iteration", yscale="log")
        row[3].legend()
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
