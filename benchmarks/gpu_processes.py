"""The section `processes` of `gpu.py`: DDP and FSDP2 by NCCL in a world of one, and two processes by gloo."""

import copy
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from gpu_commands import records, sets
from gpu_findings import Findings
from torch import nn

from sitkit.backbones import SiT
from sitkit.recipes.cli import main
from sitkit.recipes.training import fsdp
from sitkit.recipes.training.process_group import ProcessGroup, full_tensor, is_sharded, no_gradient_sync, wrap_ddp

SETTINGS = {
    "ddp": (),
    "fsdp": ("compute.parallel=fsdp",),
    "ddp, bf16 compiled": ("train.precision=bf16", "compute.compile=true"),
    "fsdp, bf16": ("compute.parallel=fsdp", "train.precision=bf16"),
}


def check(findings: Findings, seconds: float) -> None:
    """Run all of them."""
    findings.guard("a world of one", lambda: _alone(findings))
    for name in [*SETTINGS][: 1 if findings.quick else None]:
        findings.guard(f"two processes on one GPU, {name}", lambda name=name: _two(findings, name))  # type: ignore[misc]


def _environment(rank: int, world: int, port: int) -> dict[str, str]:
    variables = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "2", **{key: str(value) for key, value in variables.items()}}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _alone(findings: Findings) -> None:
    """Train by DDP and by FSDP2, and write and read what is sharded."""
    os.environ.update(_environment(0, 1, _free_port()))
    device = torch.device(findings.device, 0) if findings.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        dist.all_reduce(torch.ones(3))
        dist.all_reduce(torch.ones(3, device=device))
        dist.barrier()
        x, t, y = torch.randn(4, 1, 8, 8, device=device), torch.rand(4, device=device), torch.arange(4, device=device)
        network = _network(device)
        trained = wrap_ddp(network, network, ProcessGroup(0, 2, 2, device))
        for stay in (True, False):
            with no_gradient_sync(trained, network, stay):
                trained(x, t, y=y).square().mean().backward()
        findings.write("DDP in a world of one", works=True)
        del trained
        for parallel, precision in (("fsdp", "float32"), ("hybrid", "float32"), ("fsdp", "bf16")):
            network = _network(device)
            average = copy.deepcopy(network).requires_grad_(False)
            group = ProcessGroup(0, 1, 1, device)
            fsdp.shard([network], group, parallel, precision)  # type: ignore[arg-type]
            fsdp.shard([average], group, parallel)
            optimizer = torch.optim.AdamW(network.parameters(), fused=True)
            for _ in range(2):
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    out = network(x, t, y=y)
                out.float().square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                with torch.no_grad():
                    torch._foreach_lerp_([*average.parameters()], [*network.parameters()], 0.1)
            findings.write(f"{parallel}, {precision}, in a world of one", **_written(network))
    finally:
        dist.destroy_process_group()


def _network(device: torch.device) -> SiT:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "input_size": 8,
        "patch_size": 2,
        "in_channels": 1,
        "hidden_size": 64,
        "depth": 3,
        "num_heads": 4,
    }
    network = SiT(**sizes, num_classes=4).to(device)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    return network


def _written(network: SiT) -> dict[str, object]:
    """Write a network beside changing it, and tell whether what is read is what it was."""
    values = {f"model.{key}": value for key, value in network.state_dict().items()}
    before = {key: full_tensor(value).detach().clone() for key, value in values.items()}
    with tempfile.TemporaryDirectory() as folder:
        saving = fsdp.write(Path(folder) / "trained", values, dist.new_group(backend="gloo"))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1)
        saving.result()
        found = fsdp.read(Path(folder) / "trained", values, {})
    same = all(torch.equal(full_tensor(value).cpu(), before[key].cpu()) for key, value in found.items())
    sharded = any(is_sharded(value) for value in values.values())
    return {"read as written": same, "sharded": sharded, **({} if same and sharded else {"failed": "not as written"})}


def _two(findings: Findings, name: str) -> None:
    """Train by two processes."""
    port = _free_port()
    small = sets("train.steps=6", "checkpoint.every=3", "log.every=3", "grid.every=3", *SETTINGS[name])
    small += sets("backbone.depth=2", "sampler.steps=2")
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = [sys.executable, __file__, "train", "digits", "--device", findings.device, "--out", str(run), *small]
        logs = [Path(folder) / f"{rank}.txt" for rank in (0, 1)]
        started = []
        for rank, log in enumerate(logs):
            with log.open("w") as file:
                environment = {**os.environ, **_environment(rank, 2, port)}
                started.append(subprocess.Popen(words, stdout=file, stderr=file, env=environment))
        try:
            codes = [process.wait(90 if findings.quick else 45) for process in started]
        finally:
            for process in started:
                process.kill()
        if any(codes):
            raise RuntimeError(f"exit codes {codes}: {' '.join(log.read_text()[-300:] for log in logs)}")
        losses = [round(record["loss"], 5) for record in records(run)]
        findings.write(f"two processes, {name}", losses=losses, grids=len([*(run / "grids").iterdir()]))


def _as_one_of_two() -> None:
    """Be `sitkit` as one of two processes on one GPU, which NCCL refuses: gloo takes its place."""
    init_process_group, count = dist.init_process_group, torch.cuda.device_count
    if count():
        dist.init_process_group = lambda *_, **__: init_process_group("cpu:gloo,cuda:gloo")
        torch.cuda.device_count = lambda: 2
        torch.cuda.set_device = lambda device: None
        os.environ["LOCAL_RANK"] = "0"
    main()


if __name__ == "__main__":
    _as_one_of_two()
