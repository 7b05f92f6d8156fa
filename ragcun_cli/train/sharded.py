"""Convert tensors that FSDP2 shards over processes to whole ones and back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor, keep: bool) -> Tensor:
    """Return the tensor itself or, if it is sharded, the whole on the CPU; every process takes part.

    keep: whether this process wants it; the others get an empty one and keep no memory for it.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    full: Tensor = tensor.full_tensor()
    return full.cpu() if keep else torch.empty(0)


def spread_like(full: Tensor, target: Tensor) -> Tensor:
    """Return a whole tensor sharded and placed like `target`; every process takes part and has the whole."""
    if not isinstance(target, DTensor):
        return full.to(target.device)
    return distribute_tensor(full.to(target.device), target.device_mesh, target.placements)


def assign(target: Tensor, full: Tensor) -> None:
    """Overwrite `target`, whole or sharded, with a whole tensor."""
    target.copy_(spread_like(full, target))


def total_norm(gradients: list[Tensor]) -> Tensor:
    """Return the Euclidean norm of all gradients, sharded or not, taken as one vector; an unsharded scalar."""
    norms = []
    for gradient in gradients:
        norm = torch.linalg.vector_norm(gradient.detach(), dtype=torch.float32)
        norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    return torch.linalg.vector_norm(torch.stack(norms))
