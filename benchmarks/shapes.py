"""Setups to time: sizes of networks, and the operations of their matmuls."""

from dataclasses import dataclass

SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
"""Depth, width and heads (SiT, arXiv 2401.08740, table 9)."""

MODES = ("float32", "tf32", "bf16")
CLASSES, CHANNELS, PATCH = 1000, 4, 2
MATRIX = 4096


@dataclass(frozen=True)
class Setup:
    """One thing to time.

    Args:
        network: sitkit, plain, diffusers, or matrix, a large matmul.
        size: of the network, a key of `SIZES`.
        batch: images per step.
        side: of the latent images; (side / 2)^2 tokens.
        depth: number of blocks, if not that of the size.
        mode: precision of matmuls.
        compiled: whether the blocks are compiled.
        device: cpu or cuda.
        threads: of torch, per process.
        processes: number of processes that share the batch.
        micro_batches: of each process, of sitkit.
        activation_checkpointing: of sitkit.
    """

    network: str
    size: str = "S"
    batch: int = 8
    side: int = 32
    depth: int | None = None
    mode: str = "float32"
    compiled: bool = False
    device: str = "cpu"
    threads: int = 2
    processes: int = 1
    micro_batches: int = 1
    activation_checkpointing: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Depth, width and heads."""
        depth, width, heads = SIZES[self.size]
        return self.depth or depth, width, heads

    def operations(self) -> int:
        """Return the floating-point operations of the matmuls in a forward pass, or of the large matmul."""
        if self.network == "matrix":
            return 2 * MATRIX**3
        depth, width, _ = self.shape
        return 2 * self.batch * multiply_accumulates((self.side // PATCH) ** 2, width, depth)


def multiply_accumulates(tokens: int, width: int, depth: int) -> int:
    """Return the multiply-accumulates of a forward pass of one image: linear layers and both matmuls of attention."""
    N, D, pixels = tokens, width, PATCH**2 * CHANNELS
    block = 12 * N * D**2 + 2 * N**2 * D + 6 * D**2
    return depth * block + 2 * N * D * pixels + (256 * D + D**2) + 2 * D**2
