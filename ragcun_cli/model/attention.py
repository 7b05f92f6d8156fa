"""Self-attention over packed texts: each token sees the tokens of its own text.

Three ways give the same values. A CPU uses `attend_by_length`: no token is padded, and scores are computed again in
the backward pass rather than kept. A GPU uses `attend_flash`, torch's flash attention over texts of different lengths,
or `attend_padded` where flash attention cannot run: in float32, before Ampere, and with a bias added to the scores.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp.autocast_mode import custom_bwd, custom_fwd
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ragcun_cli.model.dropout import keep_mask

# Queries, keys and values as one (tokens, 3, heads, size), and the probability of dropout -> (tokens, heads, size).
Attend = Callable[[Tensor, float], Tensor]

MASK_MULTIPLE = 8  # GPU kernels take a mask without copying it if its last dimension is a multiple of this

PADDED_SHARE = 1.25  # computed / real tokens that one padded group may reach

# The types that flash attention takes.
FLASH_TYPES = (torch.float16, torch.bfloat16)

# Not cuDNN's, which torch prefers on newer GPUs: it builds a plan for each exact shape. And GradCache
# runs without a gradient what it then runs with one: both must draw the same dropout, so use the same kernel.
BACKENDS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class Group:
    """Adjacent texts of one length: tokens `start` to `end` are `texts` x `length`."""

    start: int
    end: int
    texts: int
    length: int


def groups_of(lengths: list[int]) -> list[Group]:
    """Group runs of equal lengths; the lengths are sorted."""
    groups, start = [], 0
    for length, run in itertools.groupby(lengths):
        texts = len(list(run))
        groups.append(Group(start, start + texts * length, texts, length))
        start += texts * length
    return groups


def choose_attention(lengths: list[int], device: torch.device, bias: Tensor | None) -> Attend:
    """Choose the fastest attention on this device for texts of these lengths, sorted.

    bias: added to the scores, (heads, L, L) with L at least `biased_length` of the longest; None for none.
    """
    if device.type == "cpu":
        return attend_by_length(groups_of(lengths), bias)
    if bias is None and _product_dtype(device) in FLASH_TYPES and _has_flash_attention(device):
        return attend_flash(lengths, device)
    return attend_padded(lengths, device, bias)


@functools.cache
def _has_flash_attention(device: torch.device) -> bool:
    """Whether torch's flash attention runs on this device: NVIDIA's GPUs from Ampere on."""
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0) and torch.backends.cuda.is_flash_attention_available()


def biased_length(longest: int) -> int:
    """The size of a bias for texts up to this length."""
    return -(-longest // MASK_MULTIPLE) * MASK_MULTIPLE


def attend_by_length(groups: list[Group], bias: Tensor | None) -> Attend:
    """Return attention in which texts of equal length share a matrix product; nothing is padded."""

    def attend(projected: Tensor, probability: float) -> Tensor:
        result: Tensor = _AttentionByLength.apply(projected, bias, groups, probability)
        return result

    return attend


def attend_flash(lengths: list[int], device: torch.device) -> Attend:
    """Return torch's flash attention over texts of different lengths; half precision alone, no bias.

    The operator itself: torch's public `varlen_attn` has no dropout, and nested tensors, which lead to the same kernel,
    took 2.2 times as long for forward and backward passes of BERT-base at batch 256 on an H200, 8.6 times at batch 16.
    """
    ends = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=device)
    longest = lengths[-1]

    def attend(projected: Tensor, probability: float) -> Tensor:
        query, key, value = projected.unbind(1)
        attended: Tensor = torch.ops.aten._flash_attention_forward(
            query, key, value, ends, ends, longest, longest, probability, False, False
        )[0]
        return attended

    return attend


def attend_padded(lengths: list[int], device: torch.device, bias: Tensor | None) -> Attend:
    """Return attention that pads texts of similar length to the longest of them; takes a bias."""
    groups = [_PaddedGroup.of(members, device) for members in _similar(lengths)]
    # Once for all layers, and before the first: with gradient checkpointing nothing may be made inside a layer.
    masks = [group.mask(bias, _product_dtype(device)) for group in groups]
    sizes = [len(group.slots) for group in groups]

    def attend(projected: Tensor, probability: float) -> Tensor:
        # One split: the gradient of a slice would be as large as the whole, once for each group.
        parts = zip(groups, projected.split(sizes), masks, strict=True)
        return torch.cat([group.attend(part, mask, probability) for group, part, mask in parts])

    return attend


def _product_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of matrix products here, and so of the projections: autocast's type, or float32."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


@dataclass(frozen=True)
class _PaddedGroup:
    """Texts padded to `longest`; `slots` (tokens,) says where each token stands among texts x longest places.

    outside: (texts, 1, 1, longest) float32, -inf where there is no token.
    """

    texts: int
    longest: int
    slots: Tensor
    outside: Tensor

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> _PaddedGroup:
        longest = biased_length(lengths[-1])
        real = torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]
        outside = torch.zeros(real.shape).masked_fill(~real, float("-inf"))[:, None, None, :]
        slots = real.flatten().nonzero().squeeze(1)
        return cls(len(lengths), longest, slots.to(device), outside.to(device))

    def mask(self, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        """What is added to the scores, (texts, heads or 1, longest or 1, longest)."""
        if bias is None:
            return self.outside.to(dtype)
        # Cast before they meet: in float32 the sum of 768 texts of 384 tokens would take 5.4 GB.
        return self.outside.to(dtype) + bias[None, :, : self.longest, : self.longest].to(dtype)

    def attend(self, projected: Tensor, mask: Tensor, probability: float) -> Tensor:
        q, k, v = (self._pad(tokens) for tokens in projected.unbind(1))
        with sdpa_kernel(BACKENDS):
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=probability)
        return attended.transpose(1, 2).flatten(0, 1)[self.slots]

    def _pad(self, tokens: Tensor) -> Tensor:
        places = tokens.new_zeros(self.texts * self.longest, *tokens.shape[1:]).index_copy(0, self.slots, tokens)
        return places.view(self.texts, self.longest, *tokens.shape[1:]).transpose(1, 2)


def _similar(lengths: list[int]) -> Iterator[list[int]]:
    """Yield the lengths of runs whose padding stays within PADDED_SHARE; the lengths are sorted.

    Texts that are padded to the same length anyway stay together.
    """
    members = lengths[:1]
    for length in lengths[1:]:
        padded = biased_length(length)
        if padded > biased_length(members[-1]) and padded * (len(members) + 1) > PADDED_SHARE * (sum(members) + length):
            yield members
            members = []
        members.append(length)
    yield members


# Under a CPU's autocast too: half precision would save nothing here, and the softmax needs the precision.
_in_float32: Callable[[Callable[..., Any]], Callable[..., Any]] = custom_fwd(
    device_type="cpu", cast_inputs=torch.float32
)
_without_autocast: Callable[[Callable[..., Any]], Callable[..., Any]] = custom_bwd(device_type="cpu")


class _AttentionByLength(torch.autograd.Function):
    """softmax(q k' / sqrt(size) + bias), dropout, times v, group by group, in float32.

    Kept for the backward pass: the inputs and which probabilities were dropped, one byte each. The scores are a
    few per cent of a layer's work, but in float32 they would be a sixth of its memory.
    """

    @staticmethod
    @_in_float32
    def forward(ctx: Any, projected: Tensor, bias: Tensor | None, groups: list[Group], probability: float) -> Tensor:
        heads = projected.shape[2]
        keep, factor = None, 1.0
        if probability > 0:
            keep, factor = keep_mask(sum(group.texts * heads * group.length**2 for group in groups), probability)
        attended = torch.empty_like(projected[:, 0], memory_format=torch.contiguous_format)
        drawn = 0
        for group in groups:
            q, k, v = _by_head(projected, group)
            probabilities = _probabilities(q, k, bias, group)
            if keep is not None:
                kept = keep[drawn : drawn + probabilities.numel()].view(probabilities.shape)
                drawn += probabilities.numel()
                probabilities = probabilities.mul_(kept).mul_(factor)
            _by_head(attended[:, None], group)[0].copy_(probabilities @ v)
        ctx.save_for_backward(projected, bias, keep)
        ctx.groups, ctx.factor = groups, factor
        return attended

    @staticmethod
    @_without_autocast
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        projected, bias, keep = ctx.saved_tensors
        heads, size = projected.shape[2:]
        d_projected = torch.empty_like(projected)
        d_bias = torch.zeros_like(bias) if bias is not None else None
        drawn = 0
        for group in ctx.groups:
            q, k, v = _by_head(projected, group)
            d_q, d_k, d_v = _by_head(d_projected, group)
            (d_out,) = _by_head(gradient[:, None], group)
            probabilities = _probabilities(q, k, bias, group)
            d_probabilities = d_out @ v.transpose(-1, -2)
            dropped = probabilities
            if keep is not None:
                kept = keep[drawn : drawn + probabilities.numel()].view(probabilities.shape)
                drawn += probabilities.numel()
                dropped = probabilities.mul(kept).mul_(ctx.factor)
                d_probabilities.mul_(kept).mul_(ctx.factor)
            d_v.copy_(dropped.transpose(-1, -2) @ d_out)
            # The softmax's gradient: p (dp - sum(p dp)).
            d_scores = d_probabilities.mul_(probabilities)
            d_scores.addcmul_(probabilities, d_scores.sum(-1, keepdim=True), value=-1)
            if d_bias is not None:
                of_group = d_scores.view(group.texts, heads, group.length, group.length).sum(0)
                d_bias[:, : group.length, : group.length] += of_group
            d_scores.mul_(size**-0.5)
            d_q.copy_(d_scores @ k)
            d_k.copy_(d_scores.transpose(-1, -2) @ q)
        return d_projected, d_bias, None, None


def _by_head(tokens: Tensor, group: Group) -> list[Tensor]:
    """Views of the group's queries, keys, … : (texts, heads, length, size), for a single text (heads, length, size).

    tokens: (all tokens, how many, heads, size).
    """
    part = tokens[group.start : group.end].view(group.texts, group.length, *tokens.shape[1:])
    # One text is the common case, and a 3-dimensional product takes several calls fewer than a 4-dimensional one.
    return [each.transpose(1, 2).squeeze(0) for each in part.unbind(2)]


def _probabilities(query: Tensor, key: Tensor, bias: Tensor | None, group: Group) -> Tensor:
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if bias is not None:
        scores += bias[:, : group.length, : group.length]
    return scores.softmax(-1)
