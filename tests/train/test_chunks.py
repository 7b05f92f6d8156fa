"""A batch that passes in chunks has the whole batch's gradient; memory decides the chunk, never the loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ragcun_cli.data.tokens import TokenBatch, chunks_within
from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.model import IsotropicGaussianEncoder
from ragcun_cli.train import memory, step
from ragcun_cli.train.arm import train_arm
from ragcun_cli.train.chunks import backward_in_chunks
from ragcun_cli.train.hardware import full_float32, tensor_float32
from ragcun_cli.train.memory import find_chunk_size, halved, kept_bytes
from tests.training_runs import load, stopped_at

CPU = torch.device("cpu")


def tokens(count: int = 24) -> TokenBatch:
    random = np.random.default_rng(0)
    return TokenBatch.of([random.integers(5, 300, random.integers(2, 40)).tolist() for _ in range(count)])


def contrast(embeddings: Tensor) -> Tensor:
    """A loss in which every text meets every other, and whose gradient depends on their order."""
    weights = torch.linspace(0.5, 1.5, len(embeddings))
    among = torch.logsumexp(-torch.cdist(embeddings, embeddings + 0.1) * weights, dim=1).mean()
    return among + embeddings.square().mean()  # so that a common shift has a gradient too


def gradients(encoder: IsotropicGaussianEncoder, chunk_tokens: int | None, seed: int = 0) -> dict[str, Tensor]:
    encoder.zero_grad()
    torch.manual_seed(seed)

    def backward(embeddings: Tensor) -> float:
        loss = contrast(embeddings)
        loss.backward()
        return loss.item()

    chunks = list(chunks_within(tokens().lengths, chunk_tokens))
    loss = backward_in_chunks(encoder, tokens(), chunks, backward)
    found = {name: each.grad.clone() for name, each in encoder.named_parameters() if each.grad is not None}
    return {**found, "loss": torch.tensor(loss)}


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_mpnet"])
@pytest.mark.parametrize("chunk_tokens", [1, 60, 200, 10_000])
def test_chunked_gradients_are_those_of_the_whole_batch(
    family: str, chunk_tokens: int, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(family)
    encoder = IsotropicGaussianEncoder.from_base(str(folder), output_dim=16).eval()
    contrast(encoder(tokens())).backward()
    plain = {name: each.grad.clone() for name, each in encoder.named_parameters() if each.grad is not None}
    largest = max(gradient.norm() for gradient in plain.values())
    chunked = gradients(encoder, chunk_tokens)
    for name, gradient in plain.items():
        scale = largest if name.endswith(("key.bias", "k.bias")) else gradient.norm()  # these are zero but for rounding
        assert (chunked[name] - gradient).norm() <= 1e-5 * scale, name


def test_the_second_pass_has_the_dropout_of_the_first(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the embeddings that the loss saw would not be those that take its gradient: no loss has this gradient."""
    encoder = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=16).train()
    passes: list[Tensor] = []
    real = encoder.forward

    def spy(batch: TokenBatch) -> Tensor:
        embeddings = real(batch)
        passes.append(embeddings.detach())
        return embeddings

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "forward", spy)
        gradients(encoder, 150)
    chunks = (len(passes) + 1) // 2
    assert chunks > 2
    for first, second in zip(passes[: chunks - 1], passes[chunks:], strict=True):
        assert torch.equal(first, second)
    assert torch.equal(gradients(encoder, 150)["loss"], gradients(encoder, 150)["loss"])
    assert not torch.equal(gradients(encoder, 150, seed=1)["loss"], gradients(encoder, 150)["loss"])


def test_random_numbers_go_on_after_the_step_as_after_one_pass_of_each_chunk(tiny_bert: Path) -> None:
    encoder = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=16).train()
    gradients(encoder, 150)
    after_chunks = torch.rand(1)
    torch.manual_seed(0)
    with torch.no_grad():
        for chunk in chunks_within(tokens().lengths, 150):
            encoder(tokens().select(chunk))
    assert torch.equal(torch.rand(1), after_chunks)


def logged(folder: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


def test_a_run_in_chunks_trains_as_the_whole_batch_does(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = IsotropicGaussianEncoder.train
    monkeypatch.setattr(IsotropicGaussianEncoder, "train", lambda self, mode=True: real(self, False))  # no dropout
    runs = []
    for name, overrides in {"whole": ["chunk_tokens=100000"], "chunks": ["chunk_tokens=200"]}.items():
        summary = train_arm(load(small_recipe, *overrides, "max_steps=6", f"output_dir='{tmp_path / name}'"))
        runs.append(logged(summary.folder))
    for whole, chunked in zip(*runs, strict=True):
        for term in ("loss", "contrastive", "isotropy", "gradient_norm"):
            assert chunked[term] == pytest.approx(whole[term], rel=1e-4), term


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A device on which a pass of more than 300 tokens with gradient runs out of memory; the tokens of all passes."""
    passed: list[int] = []
    real = IsotropicGaussianEncoder.pool

    def pool(self: IsotropicGaussianEncoder, batch: TokenBatch) -> Tensor:
        passed.append(int(batch.lengths.sum()))
        if torch.is_grad_enabled() and passed[-1] > 300:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 more")
        return real(self, batch)

    monkeypatch.setattr(IsotropicGaussianEncoder, "pool", pool)
    return passed


def test_out_of_memory_halves_the_chunk_and_never_the_batch(
    small_recipe: Path, tmp_path: Path, little_memory: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load(small_recipe, "chunk_tokens=1000", "max_steps=6", "save_every=2")
    summary = train_arm(recipe)
    assert "out of memory at step 1" in capsys.readouterr().err
    status = json.loads((Path(summary.folder) / "status.json").read_text())
    assert status["chunk_tokens"] <= 300
    other = load(small_recipe, f"chunk_tokens={status['chunk_tokens']}", "max_steps=6", f"output_dir='{tmp_path}/b'")
    found, known = (logged(folder) for folder in (summary.folder, train_arm(other).folder))
    assert found == known  # the failed tries left no trace, not in the random numbers either


def test_a_chunk_that_was_halved_stays_so_after_a_resume(
    small_recipe: Path, little_memory: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load(small_recipe, "chunk_tokens=1000", "max_steps=6", "save_every=2")
    with stopped_at(3):
        train_arm(recipe)
    monkeypatch.setattr(step, "halved", None)  # must not be needed again
    assert train_arm(recipe, resume=True).steps == 6


def test_a_gpu_is_probed_by_trying(tiny_bert: Path, little_memory: list[int]) -> None:
    encoder = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=16).train()
    batch = tokens(40)
    size = memory._by_trying(encoder, batch, CPU, reserved_bytes=1000)
    total = int(batch.lengths.sum())
    assert size.tokens == total // 4  # 757 and 378 were too many
    assert little_memory == sorted(little_memory, reverse=True)
    assert find_chunk_size(encoder, tokens(5), CPU, 1000).tokens is None


def test_a_cpu_is_probed_by_what_a_pass_keeps(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=16).train()
    batch = tokens(40)
    total, per_token = int(batch.lengths.sum()), kept_bytes(encoder, batch) / int(batch.lengths.sum())
    # A layer keeps about (8 x 32 + 2 x 64) floats and 2 x 32 bytes of masks for a token.
    assert 2 * 4 * (8 * 32 + 2 * 64) * 0.8 < per_token < 2 * 4 * (8 * 32 + 2 * 64) * 1.6

    def with_free(free: float) -> memory.ChunkSize:
        monkeypatch.setattr("psutil.virtual_memory", lambda: type("", (), {"available": free})())
        return find_chunk_size(encoder, batch, CPU, reserved_bytes=10_000)

    assert with_free(1e9).tokens is None
    some = with_free(10_000 + per_token * total)  # half of it is for the pass
    assert some.tokens in (2**n for n in range(12))
    assert 0.2 * total < some.tokens <= 0.55 * total
    with pytest.raises(EnvironmentUnfit, match="of memory is free"):
        with_free(10_000 + 20 * per_token)


def test_the_probe_leaves_random_numbers_and_weights_as_they_were(tiny_bert: Path) -> None:
    encoder = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=16).train()
    before = torch.get_rng_state()
    find_chunk_size(encoder, tokens(), CPU, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_chunk_is_not_halved_for_ever() -> None:
    assert halved(None, 500) == 250
    assert halved(1000, 400) == 200  # it was already the whole batch
    with pytest.raises(EnvironmentUnfit, match="out of memory with 100 tokens in one pass"):
        halved(100, 500)


def test_losses_are_computed_in_full_float32_whatever_the_encoder_uses() -> None:
    from ragcun_cli.train.precision import Hardware

    before = torch.get_float32_matmul_precision()
    with tensor_float32(Hardware("cuda", "A100", (8, 0))):
        assert torch.get_float32_matmul_precision() == "high"
        with full_float32():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    with tensor_float32(Hardware("cuda", "Tesla T4", (7, 5))):
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == before


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragcun_cli.environment.CONTROL_GROUP", tmp_path)
    whole = memory.free_memory()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory.free_memory() == pytest.approx(whole, rel=0.1)
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory.free_memory() == 4000
