"""An encoder is used as its authors use it, or refused with the reason: never approximated in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BigBirdConfig,
    BigBirdModel,
    ConvBertConfig,
    ConvBertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ReformerConfig,
    ReformerModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    XLNetConfig,
    XLNetModel,
)

from ragcun_cli.errors import ModelError
from ragcun_cli.evaluate.embedding import network_store
from ragcun_cli.evaluate.models import open_model
from ragcun_cli.evaluate.runner import _entry as result_entry
from ragcun_cli.evaluate.scoring import Scheme
from ragcun_cli.model import IsotropicGaussianEncoder
from ragcun_cli.model.folder import load_encoder, save_encoder
from ragcun_cli.model.sources import model_identity
from tests.conftest import RunCommand
from tests.tiny_models import WORDS, word_tokenizer

TEXTS = ["w1 w2 w3", "w4 " * 40, "w7", "W1 w2 W3"]
BERTS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MODULES = [("", "Transformer"), ("1_Pooling", "Pooling")]


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def write_modules(folder: Path, modules: list[tuple[str, str]], package: str = "sentence_transformers.models") -> None:
    listed = [{"idx": n, "name": str(n), "path": path, "type": f"{package}.{kind}"}
              for n, (path, kind) in enumerate(modules)]  # fmt: skip
    write(folder, "modules.json", listed)
    write(folder, "1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})


@pytest.fixture
def bert(tmp_path: Path, tiny_bert: Path) -> Path:
    return shutil.copytree(tiny_bert, tmp_path / "bert")


def save_tokenizer(folder: Path, specials: list[str] = BERTS, **names: str) -> None:
    tokens = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), BERTS, strict=True)) | names
    tokenizer = word_tokenizer(specials, tokens["unk_token"], tokens["cls_token"], tokens["sep_token"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **tokens).save_pretrained(folder)


def changed_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def without(part: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda weights: {name: each for name, each in weights.items() if part not in name}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (without("layer.1."), r"16 are missing, such as encoder\.layer\.1\.attention"),
        (without("embeddings.LayerNorm.bias"), r"1 are missing, such as embeddings\.LayerNorm\.bias"),
        (
            lambda weights: {f"module.{name}": each for name, each in weights.items()},
            r"are missing, such as embeddings",
        ),
        (
            lambda weights: weights | {"encoder.layer.2.output.dense.bias": torch.zeros(32)},
            r"1 in the file have no place, such as encoder\.layer\.2\.output\.dense\.bias",
        ),
        (
            lambda weights: weights | {"bert.encoder.layer.0.lora_A": torch.zeros(3)},
            r"1 in the file have no place, such as bert\.encoder\.layer\.0\.lora_A",
        ),
    ],
)
def test_weights_that_do_not_fit_are_an_error_that_names_them(
    bert: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], complaint: str
) -> None:
    changed_weights(bert, change)
    for load in (IsotropicGaussianEncoder.untouched, IsotropicGaussianEncoder.from_base):
        with pytest.raises(ModelError, match=complaint):
            load(str(bert))


def test_every_command_refuses_weights_that_do_not_fit(
    bert: Path, ragcun: RunCommand, tmp_path: Path, small_recipe: Path, dev_folder: Path
) -> None:
    changed_weights(bert, without("layer.1."))
    (tmp_path / "texts.txt").write_text("w1 w2\n")
    for command in (
        ["encode", tmp_path / "texts.txt", "-m", bert, "-o", tmp_path / "out.npy"],
        ["eval", "beir", "-m", bert, "-d", dev_folder, "--split", "dev", "--results", tmp_path / "results"],
        ["train", "-r", small_recipe, "--set", f"base_model={bert}"],
    ):
        finished = ragcun(*command)
        assert finished.exit_code == 1
        assert "its weights do not match its config.json: 16 are missing" in finished.stderr
    assert not (tmp_path / "out.npy").exists()


def test_weights_stored_as_whole_numbers_are_refused(bert: Path) -> None:
    changed_weights(bert, lambda weights: {name: (100 * each).to(torch.int8) for name, each in weights.items()})
    with pytest.raises(ModelError, match=r"embeddings\.LayerNorm\.bias is stored as I8"):
        ours(bert)


def test_lower_casing_that_a_tokenizers_class_takes_back_survives_saving(bert: Path, tmp_path: Path) -> None:
    """BertTokenizer puts a normaliser of its own into the place of the one that was saved."""
    vocabulary = json.loads((bert / "tokenizer.json").read_text())["model"]["vocab"]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bert / name).unlink()
    (bert / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n")
    write(bert, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": False})
    write(bert, "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": True})
    write_modules(bert, MODULES)
    encoder = IsotropicGaussianEncoder.untouched(str(bert))
    shouted = ["W1 W2 W3"]
    np.testing.assert_allclose(encoder.encode(shouted), encoder.encode(["w1 w2 w3"]), atol=1e-6)
    save_encoder(encoder, tmp_path / "saved")
    loaded = load_encoder(tmp_path / "saved")
    np.testing.assert_allclose(loaded.encode(shouted), encoder.encode(shouted), atol=1e-6)
    np.testing.assert_allclose(theirs(tmp_path / "saved", shouted), encoder.encode(shouted), atol=1e-5)
    save_encoder(loaded, tmp_path / "again")
    again = load_encoder(tmp_path / "again")
    np.testing.assert_allclose(again.encode(shouted), encoder.encode(shouted), atol=1e-6)


def test_a_trained_models_own_backbone_is_looked_at_too(bert: Path, tmp_path: Path) -> None:
    save_encoder(IsotropicGaussianEncoder.from_base(str(bert), output_dim=8), tmp_path / "saved")
    changed_weights(tmp_path / "saved", without("layer.1."))
    settings = json.loads((tmp_path / "saved" / "ragcun.json").read_text())
    settings["sha256"].pop("model.safetensors")
    write(tmp_path / "saved", "ragcun.json", settings)
    with pytest.raises(ModelError, match="16 are missing"):
        load_encoder(tmp_path / "saved")


def test_heads_of_other_tasks_and_old_counters_are_no_weights_of_the_encoder(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=len(BERTS) + len(WORDS), hidden_size=32, num_hidden_layers=2,
                        num_attention_heads=2, intermediate_size=64, max_position_embeddings=64)  # fmt: skip
    torch.manual_seed(0)
    model = BertForMaskedLM(config)
    model.save_pretrained(tmp_path / "lm")
    save_tokenizer(tmp_path / "lm")
    changed_weights(
        tmp_path / "lm", lambda weights: weights | {"bert.embeddings.position_ids": torch.arange(64)[None].float()}
    )
    encoder = IsotropicGaussianEncoder.untouched(str(tmp_path / "lm"))
    ours = encoder.network.state_dict()
    assert all(torch.equal(ours[name], each) for name, each in model.bert.state_dict().items() if name in ours)


def test_what_changes_the_function_changes_key_and_fingerprint(bert: Path) -> None:
    """Weights alone do not tell: an activation, an order of modules or a lower-casing changes every embedding."""

    def known_by() -> tuple[str, str, str]:
        opened = open_model(str(bert))
        store = network_store(opened, bert.parent).folder.name
        return model_identity(bert), store, result_entry(opened.entry, Scheme()).fingerprint("d", "test")

    seen = [known_by()]
    assert known_by() == seen[0]
    config = json.loads((bert / "config.json").read_text())
    for content in ({"hidden_act": "relu"}, {"hidden_act": "gelu", "layer_norm_eps": 0.1}, {"num_attention_heads": 4}):
        write(bert, "config.json", {**config, **content})
        seen.append(known_by())
    write_modules(bert, [*MODULES, ("2_Normalize", "Normalize")])
    seen.append(known_by())
    write(bert, "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": True})
    seen.append(known_by())
    write(bert, "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": True})
    seen.append(known_by())
    for position in range(3):
        assert len({each[position] for each in seen}) == len(seen)
    before = known_by()
    (bert / "README.md").write_text("a card")
    (bert / "training.json").write_text("{}")
    assert known_by() == before


def theirs(folder: Path, texts: list[str] = TEXTS) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode(texts)


def ours(folder: Path, texts: list[str] = TEXTS) -> np.ndarray:
    return IsotropicGaussianEncoder.untouched(str(folder)).encode(texts)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_seq_length": 10, "do_lower_case": False},
        {"max_seq_length": 64, "do_lower_case": True},
        {"max_seq_length": 200, "tokenizer_args": {"model_max_length": 6}},
        {"processor_kwargs": {"model_max_length": 7}, "transformer_task": "feature-extraction"},
        {"query_length": 9, "document_length": 9},
    ],
)
@pytest.mark.parametrize("name", ["sentence_bert_config.json", "sentence_roberta_config.json"])
def test_lengths_and_case_are_the_authors(bert: Path, settings: dict[str, Any], name: str) -> None:
    write_modules(bert, MODULES)
    write(bert, name, settings)
    if "query_length" in settings:
        from sentence_transformers import SentenceTransformer

        expected = SentenceTransformer(str(bert), device="cpu").encode_query(TEXTS)
    else:
        expected = theirs(bert)
    np.testing.assert_allclose(ours(bert), expected, atol=1e-5)
    same_case = np.abs(ours(bert)[0] - ours(bert)[3]).max() < 1e-6
    assert same_case == bool(settings.get("do_lower_case"))


def test_lower_casing_stays_with_what_is_trained_from_it(bert: Path, tmp_path: Path) -> None:
    write_modules(bert, MODULES)
    write(bert, "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": True})
    encoder = IsotropicGaussianEncoder.from_base(str(bert), output_dim=8)
    save_encoder(encoder, tmp_path / "saved")
    again = load_encoder(tmp_path / "saved").encode(TEXTS)
    np.testing.assert_allclose(again[0], again[3], atol=1e-6)
    np.testing.assert_allclose(again, theirs(tmp_path / "saved"), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"query_length": 8, "document_length": 32}, "queries are cut at 8 tokens and passages at 32"),
        ({"query_length": 8}, "queries are cut at 8 tokens and passages at None"),
        ({"tokenizer_args": {"padding_side": "left"}}, "its tokenizer settings padding_side are not supported"),
        ({"transformer_task": "text-generation"}, "transformer_task is 'text-generation'"),
        ({"query_expansion": {"length": 32}}, "query_expansion is"),
        ({"model_args": {"attn_implementation": "eager"}}, "model_args is"),
    ],
)
def test_what_is_declared_and_not_done_is_refused_by_name(bert: Path, settings: dict[str, Any], complaint: str) -> None:
    write_modules(bert, MODULES)
    write(bert, "sentence_bert_config.json", settings)
    with pytest.raises(ModelError, match=complaint):
        ours(bert)


@pytest.mark.parametrize(
    ("modules", "package", "complaint"),
    [
        (MODULES, "their_package.modules", "their_package.modules.Transformer is a module from another package"),
        ([MODULES[0], ("1_Normalize", "Normalize"), ("1_Pooling", "Pooling")], "sentence_transformers.models",
         "has the modules Transformer, Normalize, Pooling"),
        ([*MODULES, ("2_Dense", "Dense")], "sentence_transformers.models", "has a Dense module"),
        ([MODULES[0]], "sentence_transformers.models", "has the modules Transformer"),
        ([("0_Transformer", "Transformer"), MODULES[1]], "sentence_transformers.models",
         "its weights are in 0_Transformer/"),
    ],
)  # fmt: skip
def test_other_modules_and_orders_are_refused(
    bert: Path, modules: list[tuple[str, str]], package: str, complaint: str
) -> None:
    write_modules(bert, modules, package)
    with pytest.raises(ModelError, match=complaint):
        ours(bert)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_the_authors_is_refused(bert: Path, name: str) -> None:
    write(bert, name, {**json.loads((bert / name).read_text()), "auto_map": {"AutoModel": "modeling.TheirModel"}})
    with pytest.raises(ModelError, match=rf"{name}: this model is defined by its authors' own Python code"):
        ours(bert)


def test_adapters_and_pointers_of_git_lfs_are_refused(bert: Path) -> None:
    write(bert, "adapter_config.json", {"peft_type": "LORA"})
    with pytest.raises(ModelError, match="is an adapter for another model"):
        ours(bert)
    (bert / "adapter_config.json").unlink()
    (bert / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n")
    with pytest.raises(ModelError, match=r"model\.safetensors: is a Git LFS pointer") as caught:
        ours(bert)
    assert "git lfs pull" in caught.value.hint


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_positions_are_counted_after_whatever_the_padding_index_is(tmp_path: Path, padding: int) -> None:
    specials = ["<s>", "</s>", "<unk>", "<mask>"]
    specials.insert(padding, "<pad>")
    config = RobertaConfig(vocab_size=len(specials) + len(WORDS), hidden_size=32, num_hidden_layers=2,
                           num_attention_heads=2, intermediate_size=64, max_position_embeddings=66 + padding,
                           pad_token_id=padding)  # fmt: skip
    torch.manual_seed(0)
    RobertaModel(config).save_pretrained(tmp_path / "roberta")
    save_tokenizer(tmp_path / "roberta", specials, pad_token="<pad>", unk_token="<unk>", cls_token="<s>",
                   sep_token="</s>", mask_token="<mask>")  # fmt: skip
    write_modules(tmp_path / "roberta", MODULES)
    encoder = IsotropicGaussianEncoder.untouched(str(tmp_path / "roberta"))
    assert encoder.is_packed
    assert encoder.settings.max_length == 64
    long = ["w1 " * 100, *TEXTS]
    np.testing.assert_allclose(encoder.encode(long), theirs(tmp_path / "roberta", long), atol=1e-5)
    write(tmp_path / "roberta", "config.json",
          {**json.loads((tmp_path / "roberta" / "config.json").read_text()), "pad_token_id": None})  # fmt: skip
    with pytest.raises(ModelError, match=r"config\.json has no pad_token_id"):
        ours(tmp_path / "roberta")


SMALL = {"vocab_size": len(BERTS) + len(WORDS), "pad_token_id": 0}


def saved(folder: Path, model: PreTrainedModel) -> Path:
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: ConvBertModel(ConvBertConfig(hidden_size=32, embedding_size=32, num_hidden_layers=2,
                               num_attention_heads=2, intermediate_size=64, **SMALL)),
         "depends on the other texts in the batch"),
        (lambda: T5EncoderModel(T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
                                is_encoder_decoder=False, **SMALL)), "a t5 model is not a text encoder"),
        (lambda: BigBirdModel(BigBirdConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                              intermediate_size=64, attention_type="block_sparse", **SMALL)),
         "would then depend on the texts before it"),
        (lambda: ReformerModel(ReformerConfig(hidden_size=32, num_attention_heads=2, attention_head_size=16,
                               feed_forward_size=64, attn_layers=["local", "local"], axial_pos_embds=False,
                               max_position_embeddings=64, local_attn_chunk_length=8, **SMALL)),
         "gives 64 values per token"),
    ],
)  # fmt: skip
def test_families_that_cannot_be_embedded_are_refused_with_the_reason(
    tmp_path: Path, build: Callable[[], torch.nn.Module], complaint: str
) -> None:
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=complaint):
        ours(saved(tmp_path / "model", build()))


@pytest.mark.parametrize(
    "build",
    [
        lambda: DistilBertModel(DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, **SMALL)),
        lambda: GPT2Model(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, vocab_size=SMALL["vocab_size"])),
        lambda: XLNetModel(XLNetConfig(d_model=32, n_layer=2, n_head=2, d_inner=64, **SMALL)),
    ],
)  # fmt: skip
def test_other_families_are_embedded_the_same_in_any_company(
    tmp_path: Path, build: Callable[[], torch.nn.Module]
) -> None:
    torch.manual_seed(0)
    encoder = IsotropicGaussianEncoder.untouched(str(saved(tmp_path / "model", build())))
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
