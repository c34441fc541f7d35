"""The value of a function and its vector-Jacobian products, in every grad mode."""

from collections.abc import Callable

import torch
from torch import Tensor


def value_and_vjp(
    function: Callable[[Tensor], Tensor], x: Tensor, name: str
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    r"""Return function(x) and the function $u \mapsto J^\top u$, where J is the derivative of the function at x.

    Products are computed in the dtype of the function and can be requested any number of times. The function is called
    once. Where gradients are enabled, and x or what the function uses requires them, both results are differentiable.

    Raises:
        ValueError: the function does not return a tensor with rows, or is not differentiable by x. `name` is its name
            in the message.
    """
    function = _checked(function, name)
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        # torch.func.vjp nests in transforms, but does not run compiled networks and functions without setup_context,
        # and is undefined in inference mode. torch.autograd.grad runs these, but not inside of transforms.
        value, products = torch.func.vjp(function, x)  # type: ignore[misc]
        return value, lambda u: products(u.to(value.dtype))[0]
    enabled = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x if enabled and x.requires_grad else x.detach().clone().requires_grad_()
        value = function(leaf)
        if not value.requires_grad:
            raise _not_differentiable(name)
    record = enabled and (leaf is x or _depends_on_others(value, leaf))

    def vjp(u: Tensor) -> Tensor:
        create_graph = record or (enabled and u.requires_grad)
        with torch.inference_mode(False), torch.enable_grad():
            (product,) = torch.autograd.grad(
                value, leaf, u.to(value.dtype), retain_graph=True, create_graph=create_graph, allow_unused=True
            )
        if product is None:
            raise _not_differentiable(name)
        return product

    return value if record else value.detach(), vjp


def _depends_on_others(value: Tensor, leaf: Tensor) -> bool:
    """Return whether the graph of a value has other leaves than one, such as parameters that require gradients."""
    seen, queue = set(), [value.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", leaf) is not leaf:
            return True
        queue += [parent for parent, _ in node.next_functions]
    return False


def _not_differentiable(name: str) -> ValueError:
    return ValueError(
        f"{name} must be differentiable by the state: remove torch.no_grad and detach (to a constant, add 0 * x)"
    )


def _checked(function: Callable[[Tensor], Tensor], name: str) -> Callable[[Tensor], Tensor]:
    """Return the function with a check that it returns a tensor with a row for each sample."""

    def checked(x: Tensor) -> Tensor:
        value = function(x)
        if not isinstance(value, Tensor) or not value.ndim:
            given = "a scalar" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name} must return a tensor with a row for each sample, got {given}")
        return value

    return checked
