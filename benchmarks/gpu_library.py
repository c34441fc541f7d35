"""The section `library` of `gpu.py`: every component of the libraries on the GPU, compared with the CPU."""

import copy
import traceback
import warnings
from collections.abc import Callable
from typing import Any, get_args

import torch
from gpu_cases import cases
from gpu_findings import Findings
from torch import Tensor, nn

from sitkit.backbones import sit_s
from sitkit.interpolants import DDPM, Linear
from sitkit.objectives import Matching
from sitkit.recipes.experiment.field_types import Precision
from sitkit.recipes.network.precision import with_precision
from sitkit.recipes.support.torch_settings import float32_math
from sitkit.samplers import ClassifierFree, Conditional, Field, Sigma, plan, sample

BOUND = 1e-3
"""Relative differences from here on are failures; the tolerance of adaptive solvers is 1e-5."""


def check(findings: Findings, seconds: float) -> None:
    """Compare, and record the largest differences; then check precisions, settings, default devices and waits."""
    device = torch.device(findings.device)
    findings.guard("parts of the libraries", lambda: _compare(findings, device))
    findings.guard("precisions", lambda: _precisions(findings, device))
    findings.guard("TF32 set by users", lambda: _settings(findings, device))
    findings.guard("torch.set_default_device", lambda: _default_device(findings, device))
    if device.type == "cuda":
        findings.guard("waits of 10 calls", lambda: _waits(findings, device))


def _compare(findings: Findings, device: torch.device) -> None:
    gaps: dict[str, float] = {}
    failed = []
    chosen = dict([*cases().items()][:: 25 if findings.quick else 1])
    for name, case in chosen.items():
        try:
            with warnings.catch_warnings(), float32_math("ieee"):
                warnings.simplefilter("ignore")
                here, there = case(torch.device("cpu")), case(device)
            if there.device.type != device.type and name.split(": ")[-1] != "measured grid":
                failed.append(f"{name}: the result is on {there.device}")
            gaps[name] = _gap(here, there)
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {str(error)[:150]} {traceback.format_exc()[-200:]}")
    failed += [f"{name}: differs by {gap:.1e}" for name, gap in gaps.items() if not gap < BOUND]
    largest = sorted(gaps.items(), key=lambda pair: -pair[1])[:8]
    words: dict[str, Any] = {"failed": failed} if failed else {}
    findings.write(
        "GPU against CPU", cases=len(chosen), largest=[f"{gap:.1e} {name}" for name, gap in largest], **words
    )
    if "philox words" in gaps:
        findings.write("random words", equal=gaps["philox words"] == 0)


def _gap(here: Tensor, there: Tensor) -> float:
    """Return the relative difference of two tensors."""
    a, b = here.double(), there.cpu().double()
    return float((a - b).norm() / a.norm().clamp(min=1e-12))


def _precisions(findings: Findings, device: torch.device) -> None:
    """Note the error of a network and of its convolution against float64, for each precision."""
    torch.manual_seed(0)
    network = sit_s(2, input_size=16 if findings.quick else 32, in_channels=4, num_classes=10).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02)
    side = network.input_size
    x, t, y = torch.randn(2, 4, side, side), torch.rand(2), torch.arange(2)
    with torch.no_grad():
        exact = copy.deepcopy(network).double()
        outputs, patches = exact(x.double(), t.double(), y), exact.x_embedder(x.double())
        network.to(device)
        for mode in get_args(Precision):
            whole = with_precision(mode, network)(x.to(device), t.to(device), y=y.to(device))
            part = with_precision(mode, lambda x, t: network.x_embedder(x))(x.to(device), t.to(device))
            errors = {"network": _gap(outputs, whole), "patch embedding": _gap(patches, part)}
            wrong = {"failed": "float32 is not float32"} if mode == "float32" and max(errors.values()) > 1e-5 else {}
            findings.write(f"error of {mode}", **{what: f"{gap:.1e}" for what, gap in errors.items()}, **wrong)


def _settings(findings: Findings, device: torch.device) -> None:
    """Multiply matrices as sitkit does, after users have set TF32 in either of torch's ways."""
    places: Any = torch.backends
    a = torch.randn(64, 64, device=device)
    ways: dict[str, Callable[[], None]] = {
        "set_float32_matmul_precision": lambda: torch.set_float32_matmul_precision("high"),
        "fp32_precision": lambda: setattr(places.cuda.matmul, "fp32_precision", "tf32"),
    }
    for name, way in ways.items():
        way()
        try:
            with float32_math("ieee"):
                gap = _gap(a.cpu().double() @ a.cpu().double(), a @ a)
            findings.write(f"float32 after {name}", error=f"{gap:.1e}", **({"failed": "TF32"} if gap > 1e-5 else {}))
        finally:
            torch.set_float32_matmul_precision("highest")


def _default_device(findings: Findings, device: torch.device) -> None:
    for path in (Linear(), DDPM()):
        for w in (None, Sigma(path)):
            with torch.device(device):
                made = plan(Matching(path).field(_cosine), path, w=w, evaluations=4)
                out = sample(made.solver, torch.randn(4, 2), made.times)
            findings.write(f"default device, {type(path).__name__}, {'SDE' if w else 'ODE'}", result=str(out.device))


def _cosine(x: Tensor, t: Tensor) -> Tensor:
    return x.cos() * t[:, None].to(x.dtype)


def _waits(findings: Findings, device: torch.device) -> None:
    y, x = torch.arange(4, device=device), torch.randn(4, 2, device=device)

    def model(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return x * (t + y)[:, None].to(x.dtype)

    fields: dict[str, Field] = {"guided": ClassifierFree(model, y, 3, 2.0), "conditional": Conditional(model, y)}
    for name, field in fields.items():
        made = plan(Matching(Linear()).field(field), Linear(), evaluations=10)
        sample(made.solver, x, made.times)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                sample(made.solver, x, made.times)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        findings.write(f"waits, {name}", waits=sum("synchroniz" in str(one.message) for one in said))
