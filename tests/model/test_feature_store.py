"""What a frozen encoder gave is kept, found again, and made again where it is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ragcun_cli.data.tokens import NumberedTexts, TokenBatch
from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.model import IsotropicGaussianEncoder, feature_store
from ragcun_cli.model.feature_store import FeatureStore
from ragcun_cli.model.vector_store import VectorStore
from tests.damage import KINDS, damage

TEXTS = [f"w{number} " * (1 + 3 * number % 17) + f"w{number + 1}" for number in range(60)]


@pytest.fixture
def encoder(tiny_bert: Path) -> IsotropicGaussianEncoder:
    return IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=16).eval()


def numbered(encoder: IsotropicGaussianEncoder, texts: list[str]) -> NumberedTexts:
    return NumberedTexts.of(texts, lambda numbers: encoder.tokenize([texts[number] for number in numbers.tolist()]))


def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that pass an encoder from here on."""
    texts: list[str] = []
    real = IsotropicGaussianEncoder.tokenize

    def spy(self: IsotropicGaussianEncoder, some: list[str]) -> TokenBatch:
        texts.extend(some)
        return real(self, some)

    monkeypatch.setattr(IsotropicGaussianEncoder, "tokenize", spy)
    return texts


def test_features_are_the_encoders_in_any_order(
    encoder: IsotropicGaussianEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(feature_store.BLOCK_TEXTS, "cpu", 13)
    store = FeatureStore(encoder, tmp_path)
    asked = [TEXTS[5], TEXTS[40], TEXTS[5], *TEXTS[:3]]
    store.fill(numbered(encoder, TEXTS))
    torch.testing.assert_close(store.features(numbered(encoder, asked)), encoder.features(asked), rtol=0, atol=1e-6)
    np.testing.assert_allclose(store.encode(numbered(encoder, asked)), encoder.encode(asked), atol=1e-6)
    assert len(list(store.vectors.folder.iterdir())) == 5
    assert store.features(numbered(encoder, [])).shape == (0, 32)


def test_only_new_texts_pass_the_encoder(
    encoder: IsotropicGaussianEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed, done = encoded(monkeypatch), []
    FeatureStore(encoder, tmp_path).fill(numbered(encoder, TEXTS[:40] + TEXTS[:10]), done.append)
    assert sorted(passed) == sorted(TEXTS[:40])
    passed.clear()
    again = FeatureStore(encoder, tmp_path)
    assert again.count_missing(numbered(encoder, TEXTS)) == 20
    assert again.vectors.bytes_for(20) == 20 * (4 * 32 + 16) + 1024
    again.fill(numbered(encoder, TEXTS), done.append)
    assert sorted(passed) == sorted(TEXTS[40:])
    passed.clear()
    again.fill(numbered(encoder, TEXTS))
    assert passed == []


def test_another_encoder_length_or_normalisation_is_another_store(
    encoder: IsotropicGaussianEncoder, tiny_mpnet: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    import dataclasses

    others = [encoder, IsotropicGaussianEncoder.from_base(str(tiny_mpnet), output_dim=16)]
    others.append(IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=16, max_length=9))
    others.append(IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=16))
    others[-1].settings = dataclasses.replace(others[-1].settings, unit_norm_features=True)
    others.append(IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=16))
    with torch.no_grad():
        next(others[-1].network.parameters()).view(-1)[3] += 1e-6
    assert len({FeatureStore(each, tmp_path).vectors.folder for each in others}) == 5
    another_head = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=4, seed=9)
    assert FeatureStore(another_head, tmp_path).vectors.folder == FeatureStore(encoder, tmp_path).vectors.folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_shard_is_noticed_and_made_again(
    encoder: IsotropicGaussianEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(feature_store.BLOCK_TEXTS, "cpu", 30)
    FeatureStore(encoder, tmp_path).fill(numbered(encoder, TEXTS))
    shard = sorted(FeatureStore(encoder, tmp_path).vectors.folder.iterdir())[0]
    damage(shard, "vectors.npy", kind)
    expected = encoder.features(TEXTS)
    passed = encoded(monkeypatch)
    first, second = FeatureStore(encoder, tmp_path), FeatureStore(encoder, tmp_path)  # two arms, at once
    torch.testing.assert_close(first.features(numbered(encoder, TEXTS)), expected, rtol=0, atol=1e-6)
    assert "its texts will be encoded again" in capsys.readouterr().err
    torch.testing.assert_close(second.features(numbered(encoder, TEXTS)), expected, rtol=0, atol=1e-6)
    assert len(passed) == 30  # one shard, once


def test_a_disk_without_room_is_named_before_the_first_text(
    encoder: IsotropicGaussianEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = encoded(monkeypatch)
    monkeypatch.setattr(VectorStore, "free_bytes", lambda self: 1000)
    with pytest.raises(EnvironmentUnfit, match="the vectors of 60 texts need"):
        FeatureStore(encoder, tmp_path).fill(numbered(encoder, TEXTS))
    assert passed == []
