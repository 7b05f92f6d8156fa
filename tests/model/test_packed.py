"""The packed forward computes what the library's own does: states, gradients, dropout."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModel

from ragcun_cli.data.tokens import TokenBatch
from ragcun_cli.errors import UsageError
from ragcun_cli.model import IsotropicGaussianEncoder, attention
from ragcun_cli.model import packed as packed_module
from ragcun_cli.model.attention import attend_by_length, attend_flash, attend_padded, choose_attention, groups_of
from ragcun_cli.model.dropout import dropout, keep_mask
from ragcun_cli.model.packed import packed_network
from ragcun_cli.model.sources import locate_model

# torch's own words, of what its compiler calls; there is nothing here to change for them.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")

MINILM = "embedded:all-MiniLM-L6-v2"
LENGTHS = [2, 3, 3, 3, 5, 9, 9, 17, 30, 31]

SMALL = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "bert, relu": {"hidden_act": "relu"},
    "mpnet": {},
    "roberta": {"type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 1},
    "electra": {"embedding_size": 16},
}


def library_network(family: str, **changes: Any) -> nn.Module:
    config = AutoConfig.for_model(family.split(",")[0], **SMALL, **FAMILIES[family], **changes)
    torch.manual_seed(0)
    network: Any = AutoModel.from_config(config)
    if family == "mpnet":  # its bias is small at first, and a wrong one would not show
        nn.init.normal_(network.encoder.relative_attention_bias.weight, std=0.7)
    return network.eval()


def some_tokens(low: int = 5, high: int = 90) -> TokenBatch:
    random = np.random.default_rng(0)
    return TokenBatch.of([random.integers(low, high, length).tolist() for length in LENGTHS])


def library_states(network: nn.Module, batch: TokenBatch) -> Tensor:
    """Text by text, so that no padding is in it."""
    pieces = torch.from_numpy(batch.ids).split(batch.lengths.tolist())
    return torch.cat([network(input_ids=ids[None]).last_hidden_state[0] for ids in pieces])


def gradients(network: nn.Module, states: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
    (states * weights).sum().backward()
    return {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}


def assert_equal_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    largest = max(gradient.norm().item() for gradient in theirs.values())
    for name, gradient in theirs.items():
        # A key's bias changes no attention: its gradient is zero but for rounding.
        scale = largest if name.endswith(("key.bias", "k.bias")) else gradient.norm().item()
        assert (ours[name] - gradient).norm().item() <= 1e-5 * scale, name


@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_gradients_equal_the_librarys(family: str) -> None:
    network = library_network(family)
    packed = packed_network(network)
    assert packed is not None
    batch = some_tokens()
    ours, theirs = packed.states(batch), library_states(network, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert_equal_gradients(gradients(network, ours), gradients(network, theirs))
    if family == "mpnet":
        gradients(network, packed.states(batch))
        assert network.encoder.relative_attention_bias.weight.grad.abs().max() > 0.01


def test_minilms_pooled_features_and_gradients_equal_the_librarys() -> None:
    network = AutoModel.from_pretrained(locate_model(MINILM).folder, add_pooling_layer=False).eval()
    batch = some_tokens(low=1000, high=30_000)
    packed = packed_network(network)
    assert packed is not None
    ours, theirs = packed.states(batch), library_states(network, batch)
    assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-5
    assert_equal_gradients(gradients(network, ours), gradients(network, theirs))


@pytest.mark.parametrize("pad", [-1, 0, 5])
@pytest.mark.parametrize("family", ["roberta", "mpnet"])
def test_positions_are_counted_from_the_librarys_padding(family: str, pad: int) -> None:
    """MPNet's is always 1; RoBERTa's is the config's, where -1 means that positions begin at 0."""
    network = library_network(family, pad_token_id=pad)
    batch = TokenBatch.of([[6, 7, 8], [9] * 8])
    packed = packed_network(network)
    assert packed is not None
    torch.testing.assert_close(packed.states(batch), library_states(network, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["roberta", "mpnet"])
def test_a_padding_token_inside_a_text_shifts_positions_as_in_the_library(family: str) -> None:
    network = library_network(family)
    batch = TokenBatch.of([[5, 1, 7], [1, 8, 9, 1, 1, 6, 5], [9] * 8])
    packed = packed_network(network)
    assert packed is not None
    torch.testing.assert_close(packed.states(batch), library_states(network, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_layers_can_be_computed_again_in_the_backward_pass(family: str) -> None:
    network = library_network(family).train()  # with dropout, whose masks must come again
    packed = packed_network(network)
    assert packed is not None
    found = []
    for again in (False, True):
        torch.manual_seed(3)
        found.append(gradients(network, packed.states(some_tokens(), gradient_checkpointing=again)))
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


@pytest.mark.parametrize("biased", [False, True])
def test_padded_attention_gives_the_values_and_gradients_of_the_one_for_a_cpu(biased: bool) -> None:
    """It runs on the CPU here; on a GPU the same calls reach its kernels."""
    cpu = torch.device("cpu")
    results = []
    for attend_with in (
        lambda bias: attend_by_length(groups_of(LENGTHS), bias),
        lambda bias: attend_padded(LENGTHS, cpu, bias),
    ):
        generator = torch.Generator().manual_seed(0)
        projected = torch.randn(sum(LENGTHS), 3, 4, 8, generator=generator, requires_grad=True)
        bias = torch.randn(4, 32, 32, generator=generator, requires_grad=True) if biased else None
        attend = attend_with(bias)
        attended = attend(projected, 0.0) + attend(projected * 0.5, 0.0)  # two layers
        (attended * torch.randn(attended.shape, generator=generator)).sum().backward()
        results.append([attended.detach(), projected.grad, *([bias.grad] if biased else [])])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_padded_groups_stay_within_their_share() -> None:
    groups = list(attention._similar(LENGTHS))
    assert [length for members in groups for length in members] == LENGTHS
    for members in groups:
        longest = attention.biased_length(max(members))
        alike = {attention.biased_length(length) for length in members} == {longest}
        assert alike or longest * len(members) <= attention.PADDED_SHARE * sum(members)
    # Padded to one length anyway: nothing would be gained by two groups.
    assert list(attention._similar([17, 18, 23, 24, 25, 400])) == [[17, 18, 23, 24], [25], [400]]


def test_a_group_is_split_off_once_its_padding_passes_the_share() -> None:
    # 16 x 6 = 96 of 5 x 16 + 8 = 88 tokens is within 1.25; 16 x 2 = 32 of 8 + 16 = 24 is not.
    assert list(attention._similar([8, *[16] * 5])) == [[8], [16] * 5]
    assert list(attention._similar([12, 16, 24, 24])) == [[12, 16], [24, 24]]
    assert list(attention._similar([*[32] * 6, 40, 40])) == [[*[32] * 6, 40, 40]]


def test_a_recent_gpu_takes_flash_attention_in_half_precision_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, bias = torch.device("cuda", 0), torch.zeros(4, 32, 32)
    monkeypatch.setattr(attention, "attend_flash", lambda *_: "flash")
    monkeypatch.setattr(attention, "attend_padded", lambda *_: "padded")

    def chosen(products: torch.dtype, bias: Tensor | None, has_flash: bool = True) -> Any:
        # Without a GPU torch has no autocast for one.
        monkeypatch.setattr(attention, "_product_dtype", lambda _: products)
        monkeypatch.setattr(attention, "_has_flash_attention", lambda _: has_flash)
        return choose_attention(LENGTHS, gpu, bias)

    assert chosen(torch.float16, None) == chosen(torch.bfloat16, None) == "flash"
    assert chosen(torch.float32, None) == chosen(torch.bfloat16, bias) == "padded"
    assert chosen(torch.bfloat16, None, has_flash=False) == "padded"
    assert choose_attention(LENGTHS, torch.device("mps"), None) == "padded"


@pytest.mark.parametrize(("capability", "has_flash"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_flash_attention_runs_from_ampere_on(
    capability: tuple[int, int], has_flash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    whether = attention._has_flash_attention.__wrapped__  # without the cache
    assert whether(torch.device("cuda", 0)) is has_flash
    assert whether(torch.device("mps")) is False
    monkeypatch.setattr(torch.version, "cuda", None)  # AMD's GPUs are "cuda" too
    assert whether(torch.device("cuda", 0)) is False


def test_flash_attention_takes_and_returns_packed_tokens() -> None:
    """Shapes and devices of the real operator, by torch's fake tensors; a GPU's values are compared below."""
    gpu = torch.device("cuda", 0)
    with FakeTensorMode():
        half = torch.empty(sum(LENGTHS), 3, 4, 32, dtype=torch.bfloat16, device=gpu)
        attended = attend_flash(LENGTHS, gpu)(half, 0.1)
        assert (attended.shape, attended.device) == ((sum(LENGTHS), 4, 32), gpu)


# CI has no GPU: there the operator's shapes are tested above, and the padded way's values on the CPU.
@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a GPU's kernels with the CPU's values")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
def test_a_gpu_gives_the_values_and_gradients_of_the_cpu(dtype: torch.dtype, biased: bool) -> None:
    projected = torch.randn(sum(LENGTHS), 3, 4, 32, generator=torch.Generator().manual_seed(0))
    bias = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(1)) if biased else None
    results = []
    for device in (torch.device("cpu"), torch.device("cuda", 0)):
        own = projected.to(device, torch.float32 if device.type == "cpu" else dtype).requires_grad_()
        own_bias = None if bias is None else bias.to(device).requires_grad_()
        with torch.autocast("cuda", dtype, enabled=dtype is not torch.float32):
            attended = choose_attention(LENGTHS, device, own_bias)(own, 0.0)
        attended.float().square().sum().backward()
        gradients = [own.grad, *([] if own_bias is None else [own_bias.grad])]
        results.append([each.detach().float().cpu() for each in (attended, *gradients)])
    bound = 1e-5 if dtype is torch.float32 else 2e-2
    for one, two in zip(*results, strict=True):
        assert ((one - two).norm() / one.norm()).item() < bound


def test_attention_gradients_with_dropout() -> None:
    """The mask of the forward pass is the one of the backward pass: finite differences agree under one seed."""
    lengths = [2, 3, 3]
    generator = torch.Generator().manual_seed(0)
    projected = torch.randn(8, 3, 2, 4, generator=generator, dtype=torch.float64).requires_grad_()
    bias = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()

    def attend(projected: Tensor, bias: Tensor) -> Tensor:
        torch.manual_seed(5)
        return attend_by_length(groups_of(lengths), bias)(projected, 0.3)

    assert torch.autograd.gradcheck(attend, (projected, bias))


def test_dropout_keeps_each_element_with_its_probability_and_the_mean() -> None:
    torch.manual_seed(0)
    for probability in (0.1, 0.5, 0.9):
        keep, factor = keep_mask(1_000_003, probability)
        assert keep.shape == (1_000_003,)
        assert keep.float().mean().item() == pytest.approx(1 - probability, abs=2e-3)
        assert factor == pytest.approx(1 / (1 - probability), rel=1e-4)
        # Neighbours share one random number: they must still be independent.
        both = (keep[:-1] & keep[1:]).float().mean().item()
        assert both == pytest.approx((1 - probability) ** 2, abs=3e-3)
    assert not torch.equal(keep_mask(1000, 0.5)[0], keep_mask(1000, 0.5)[0])


def test_dropout_scales_values_and_gradients_alike() -> None:
    values = torch.randn(400, 30, requires_grad=True)
    dropped = dropout(values, 0.2)
    dropped.sum().backward()
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], values[kept] * 1.25, rtol=1e-4, atol=0)
    assert torch.equal(values.grad != 0, kept)
    assert dropout(values, 0.0) is values


def test_states_under_dropout_have_the_librarys_distribution() -> None:
    """Mean and spread of each number over many passes, ours against the library's."""
    network = library_network("mpnet").train()
    packed = packed_network(network)
    assert packed is not None
    batch = TokenBatch.of([[7, 8, 9], [10, 11, 12, 13]])
    torch.manual_seed(0)
    passes = 1500
    with torch.no_grad():
        ours = torch.stack([packed.states(batch) for _ in range(passes)])
        theirs = torch.stack([library_states(network, batch) for _ in range(passes)])
    error = (ours.var(0) / passes + theirs.var(0) / passes).sqrt()
    differences = (ours.mean(0) - theirs.mean(0)) / error
    assert differences.abs().max() < 5  # of 224 numbers
    assert differences.square().mean() == pytest.approx(1, abs=0.5)
    ratio = ours.std(0) / theirs.std(0)
    assert ratio.mean().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(ours[0], ours[1])


def test_autocast_computes_attention_in_float32(tiny_mpnet: Path) -> None:
    network = library_network("mpnet")
    packed = packed_network(network)
    assert packed is not None
    full = packed.states(some_tokens())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = packed.states(some_tokens())
    assert ((half.float() - full).norm() / full.norm()).item() < 0.02
    half.float().sum().backward()


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_the_whole_network_gives_the_same_with_padded_attention(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU without flash attention, or another device: padded in place of the CPU's way."""
    network = library_network(family)
    packed = packed_network(network)
    assert packed is not None
    expected = packed.states(some_tokens())
    monkeypatch.setattr(packed_module, "choose_attention", attend_padded)
    for again in (False, True):
        states = packed.states(some_tokens(), gradient_checkpointing=again)
        torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)
        assert_equal_gradients(gradients(network, states), gradients(network, packed.states(some_tokens())))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = packed.states(some_tokens())
    assert ((half.float() - expected).norm() / expected.norm()).item() < 0.03


@pytest.mark.slow
def test_compiled_layers_give_the_same_states_and_gradients() -> None:
    network = library_network("bert")
    plain, compiled = packed_network(network), packed_network(network, compiled=True)
    assert plain is not None
    assert compiled is not None
    for batch in (some_tokens(), TokenBatch.of([[5, 6, 7], [8, 9, 10, 11]])):
        ours, theirs = compiled.states(batch), plain.states(batch)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert_equal_gradients(gradients(network, ours), gradients(network, theirs))


@pytest.mark.slow
def test_compiled_layers_drop_out_alike_with_and_without_a_graph() -> None:
    """A chunk passes once without and once with gradient, and must meet the same masks."""
    packed = packed_network(library_network("bert").train(), compiled=True)
    assert packed is not None
    torch.manual_seed(0)
    with torch.no_grad():
        first = packed.states(some_tokens())
    torch.manual_seed(0)
    torch.testing.assert_close(packed.states(some_tokens()), first, rtol=1e-5, atol=1e-5)


def test_a_family_without_a_packed_path_is_padded_in_sorted_chunks(tmp_path: Path, tiny_bert: Path) -> None:
    """DistilBERT: the same embeddings whatever texts go together, and the padding is counted."""
    import shutil

    folder = tmp_path / "distil"
    shutil.copytree(tiny_bert, folder)
    config = AutoConfig.for_model(
        "distilbert", vocab_size=305, dim=32, n_layers=2, n_heads=2, hidden_dim=48, max_position_embeddings=128
    )
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    encoder = IsotropicGaussianEncoder.from_base(str(folder), output_dim=16).eval()
    assert not encoder.is_packed
    texts = [f"w{number} " * (1 + 7 * number % 40) for number in range(20)]
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(encoder.encode(texts), alone, atol=2e-6)
    lengths = encoder.tokenize(texts).lengths
    assert lengths.sum() < encoder.computed_tokens(lengths) < lengths.max() * len(texts)
    with pytest.raises(UsageError, match="ragcun cannot compile DistilBert"):
        encoder.compile_layers()


def test_a_packed_view_owns_no_weights(tiny_bert: Path) -> None:
    encoder = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=16)
    names = [name for name, _ in encoder.named_parameters()]
    assert len(names) == len(set(names))
    assert all(name.startswith(("network.", "head.")) for name in names)
    moved = copy.deepcopy(encoder.network)
    assert packed_network(moved) is not None
