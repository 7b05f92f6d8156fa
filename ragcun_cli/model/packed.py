"""The encoder without padding: BERT's and MPNet's families, on the library's own modules and weights.

The texts of a batch are concatenated into one row of tokens. Everything but attention treats tokens one by
one, so it runs on the row as it is; attention sees where texts begin and end. transformers' own forward
pads every text to the batch's longest: with queries and passages together, two to three times the real tokens.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.model.attention import Attend, biased_length, choose_attention
from ragcun_cli.model.dropout import dropout

# The families whose layers have BERT's modules under BERT's names.
BERT_LIKE = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra"})
# They count positions from padding_idx + 1 and skip padding tokens.
POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})


@dataclass(frozen=True)
class Layer:
    """The modules of one transformer layer, whatever the family calls them. whole: the library's own layer."""

    whole: Any
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_dropout: nn.Dropout
    attention_output: nn.Linear
    attention_output_dropout: nn.Dropout
    attention_norm: nn.LayerNorm
    inner: nn.Linear
    activation: Callable[[Tensor], Tensor]
    outer: nn.Linear
    outer_dropout: nn.Dropout
    outer_norm: nn.LayerNorm


@dataclass(frozen=True)
class PackedNetwork:
    """The library's network seen as the parts that a packed forward needs; it owns no weights.

    first_position: index of the first token's position embedding. relative_positions: length -> bias
    (heads, length, length) added to the attention scores, None for none. layer_calls: each layer is run by calling the
    library's module: that call makes FSDP2 collect its weights and release them afterwards.
    """

    network: Any
    embeddings: Any  # the library's own module; families differ in its parts
    layers: list[Layer]
    heads: int
    first_position: int
    padding_id: int | None
    relative_positions: Callable[[int], Tensor] | None
    finish: Callable[..., Tensor]
    layer_calls: bool = False

    def through_layer_calls(self) -> PackedNetwork:
        """Return the same network, run by calling the library's layers, whose own forward is replaced."""
        for layer in self.layers:
            layer.whole.forward = functools.partial(self._layer, layer)
        return dataclasses.replace(self, layer_calls=True)

    def states(self, batch: TokenBatch, gradient_checkpointing: bool = False) -> Tensor:
        """The last layer's states, (total tokens, hidden_size), tokens in the batch's order.

        The batch's texts are sorted by length, ascending.
        """
        device: torch.device = self.embeddings.word_embeddings.weight.device
        lengths = batch.lengths.tolist()
        states = self._embed(batch, device)
        # Computed once for all texts and layers: a shorter text's bias is the corner of the longest one's.
        bias = None
        if self.relative_positions is not None:
            bias = self.relative_positions(biased_length(max(lengths)))
        checkpointed = gradient_checkpointing and torch.is_grad_enabled()
        attend = choose_attention(lengths, device, bias)
        for layer in self.layers:
            run = layer.whole if self.layer_calls else functools.partial(self._layer, layer)
            states = checkpoint(run, states, attend, use_reentrant=False) if checkpointed else run(states, attend)
        return states

    def _embed(self, batch: TokenBatch, device: torch.device) -> Tensor:
        parts = self.embeddings
        ids = torch.from_numpy(batch.ids.astype("int64")).to(device)
        lengths = torch.from_numpy(batch.lengths)
        starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
        positions = (torch.arange(len(starts)) - starts).to(device)
        # A text may itself contain the padding token; the library gives it no position of its own.
        if self.padding_id is not None and (batch.ids == self.padding_id).any():
            is_padding = ids == self.padding_id
            before = torch.cumsum(is_padding, 0) - is_padding.long()
            positions = positions - (before - before[starts.to(device)])
            positions = torch.where(is_padding, -1, positions)
        states = parts.word_embeddings(ids) + parts.position_embeddings(positions + self.first_position)
        if hasattr(parts, "token_type_embeddings"):
            states = states + parts.token_type_embeddings.weight[0]
        states = dropout(parts.LayerNorm(states), self._probability(parts.dropout))
        if hasattr(self.network, "embeddings_project"):  # ELECTRA's small models
            states = self.network.embeddings_project(states)
        return states

    def _layer(self, layer: Layer, states: Tensor, attend: Attend) -> Tensor:
        weight = torch.cat([layer.query.weight, layer.key.weight, layer.value.weight])
        offset = torch.cat([layer.query.bias, layer.key.bias, layer.value.bias])
        projected = functional.linear(states, weight, offset).view(len(states), 3, self.heads, -1)
        attended = attend(projected, self._probability(layer.attention_dropout)).flatten(1)
        weights = [
            each
            for module in (layer.attention_output, layer.attention_norm, layer.inner, layer.outer, layer.outer_norm)
            for each in (module.weight, module.bias)
        ]
        probabilities = [self._probability(each) for each in (layer.attention_output_dropout, layer.outer_dropout)]
        return self.finish(attended, states, *weights, *probabilities, layer.outer_norm.eps, layer.activation)

    def _probability(self, module: nn.Dropout) -> float:
        return module.p if self.network.training else 0.0


def _finish_layer(
    attended: Tensor,
    states: Tensor,
    output: Tensor,
    output_bias: Tensor,
    norm: Tensor,
    norm_bias: Tensor,
    inner: Tensor,
    inner_bias: Tensor,
    outer: Tensor,
    outer_bias: Tensor,
    last_norm: Tensor,
    last_norm_bias: Tensor,
    output_dropout: float,
    outer_dropout: float,
    epsilon: float,
    activation: Callable[[Tensor], Tensor],
    drop: Callable[[Tensor, float], Tensor] = dropout,
) -> Tensor:
    """Compute what follows attention in a layer, from tensors alone, so that one compiled form serves all layers."""
    attended = drop(functional.linear(attended, output, output_bias), output_dropout)
    states = functional.layer_norm(attended + states, norm.shape, norm, norm_bias, epsilon)
    hidden = activation(functional.linear(states, inner, inner_bias))
    hidden = drop(functional.linear(hidden, outer, outer_bias), outer_dropout)
    return functional.layer_norm(hidden + states, last_norm.shape, last_norm, last_norm_bias, epsilon)


def _compiled_finish() -> Callable[..., Tensor]:
    # torch's own dropout: the compiler fuses it, and cannot see into ours.
    finish: Callable[..., Tensor] = torch.compile(
        functools.partial(_finish_layer, drop=functional.dropout), dynamic=True
    )
    return finish


def first_position(network: nn.Module) -> int:
    """Index of the first token's position embedding: RoBERTa's family counts from padding_idx + 1."""
    any_network: Any = network
    if any_network.config.model_type not in POSITIONS_AFTER_PADDING:
        return 0
    # Not word_embeddings.padding_idx: torch counts a negative one from the end.
    return int(any_network.embeddings.padding_idx) + 1


def packed_network(network: nn.Module, compiled: bool = False) -> PackedNetwork | None:
    """Return the packed view of a network, or None if its family has none.

    compiled: let torch.compile fuse what follows attention.
    """
    config: Any = network.config
    any_network: Any = network
    kind = config.model_type
    if kind not in BERT_LIKE | {"mpnet"} or getattr(config, "is_decoder", False):
        return None
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        return None
    embeddings = any_network.embeddings
    after_padding = kind in POSITIONS_AFTER_PADDING
    padding_id = first_position(network) - 1 if after_padding else None
    as_layer = _mpnet_layer if kind == "mpnet" else _bert_layer
    return PackedNetwork(
        network=network,
        embeddings=embeddings,
        layers=[as_layer(layer) for layer in any_network.encoder.layer],
        heads=config.num_attention_heads,
        first_position=first_position(network),
        padding_id=padding_id,
        relative_positions=_mpnet_bias(any_network.encoder) if kind == "mpnet" else None,
        finish=_compiled_finish() if compiled else _finish_layer,
    )


def _bert_layer(layer: Any) -> Layer:
    attention = layer.attention.self
    return Layer(
        whole=layer,
        query=attention.query,
        key=attention.key,
        value=attention.value,
        attention_dropout=attention.dropout,
        attention_output=layer.attention.output.dense,
        attention_output_dropout=layer.attention.output.dropout,
        attention_norm=layer.attention.output.LayerNorm,
        inner=layer.intermediate.dense,
        activation=layer.intermediate.intermediate_act_fn,
        outer=layer.output.dense,
        outer_dropout=layer.output.dropout,
        outer_norm=layer.output.LayerNorm,
    )


def _mpnet_layer(layer: Any) -> Layer:
    attention = layer.attention.attn
    return Layer(
        whole=layer,
        query=attention.q,
        key=attention.k,
        value=attention.v,
        attention_dropout=attention.dropout,
        attention_output=attention.o,
        attention_output_dropout=layer.attention.dropout,
        attention_norm=layer.attention.LayerNorm,
        inner=layer.intermediate.dense,
        activation=layer.intermediate.intermediate_act_fn,
        outer=layer.output.dense,
        outer_dropout=layer.output.dropout,
        outer_norm=layer.output.LayerNorm,
    )


def _mpnet_bias(encoder: Any) -> Callable[[int], Tensor]:
    def bias(length: int) -> Tensor:
        place = torch.arange(length, device=encoder.relative_attention_bias.weight.device)
        bucket = encoder.relative_position_bucket(place[None, :] - place[:, None], num_buckets=32)
        values: Tensor = encoder.relative_attention_bias(bucket).permute(2, 0, 1).contiguous()
        return values

    return bias
