"""What is timed: a network by its shape, and how many operations its products are."""

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
        network: sitkit, plain, diffusers, or matrix: a product of two large matrices.
        size: of the network.
        batch: images at once.
        side: of the latent images; (side / 2)^2 tokens.
        depth: blocks, if not as many as the size has.
        mode: how products are rounded.
        compiled: whether the blocks are.
        device: cpu or cuda.
        threads: of torch, in each process.
        processes: among which the batch is divided.
        accumulate: in how many pieces sitkit takes its share of the batch.
        recompute: whether sitkit computes activations again.
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
    accumulate: int = 1
    recompute: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Depth, width and heads."""
        depth, width, heads = SIZES[self.size]
        return self.depth or depth, width, heads

    def operations(self) -> int:
        """Return the operations of products in a forward pass of the whole batch, or of the matrices."""
        if self.network == "matrix":
            return 2 * MATRIX**3
        depth, width, _ = self.shape
        return 2 * self.batch * multiply_accumulates((self.side // PATCH) ** 2, width, depth)


def multiply_accumulates(tokens: int, width: int, depth: int) -> int:
    """Return those of a forward pass over one image, by formula: linear maps, and both products of the attention."""
    N, D, pixels = tokens, width, PATCH**2 * CHANNELS
    block = 12 * N * D**2 + 2 * N**2 * D + 6 * D**2
    return depth * block + 2 * N * D * pixels + (256 * D + D**2) + 2 * D**2
