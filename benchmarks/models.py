"""The encoders that benchmarks train and run: the real MiniLM, and MPNet-base's shape with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

MINILM = "embedded:all-MiniLM-L6-v2"


def minilm() -> Path:
    """The folder of the embedded all-MiniLM-L6-v2."""
    from ragcun_cli.model.sources import locate_model

    return locate_model(MINILM).folder


def mpnet_shape(folder: Path) -> Path:
    """An encoder of MPNet-base's shape, random weights, MiniLM's word list under MPNet's special tokens."""
    import torch
    from transformers import MPNetConfig, MPNetModel, MPNetTokenizerFast

    if (folder / "model.safetensors").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = MPNetModel(MPNetConfig(vocab_size=30_527), add_pooling_layer=False)
    network.save_pretrained(folder)
    words = (minilm() / "vocab.txt").read_text(encoding="utf-8").split("\n")[4:30_522]
    vocabulary = ["<s>", "<pad>", "</s>", "[UNK]", *words[:30_522], "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)), encoding="utf-8")
    MPNetTokenizerFast(str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    for name in ("modules.json", "sentence_bert_config.json"):
        shutil.copy(minilm() / name, folder / name)
    for part in ("1_Pooling",):
        shutil.copytree(minilm() / part, folder / part, dirs_exist_ok=True)
    config = json.loads((folder / "1_Pooling" / "config.json").read_text())
    config["word_embedding_dimension"] = 768
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    return folder


def without_dropout(network: object) -> None:
    """Every dropout of a module at probability 0."""
    import torch

    assert isinstance(network, torch.nn.Module)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
