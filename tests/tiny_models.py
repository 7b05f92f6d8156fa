"""Small encoders of the real families, built here with random weights, and texts in their vocabulary."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel, PreTrainedTokenizerFast

WORDS = [f"w{number}" for number in range(300)]


def build_tiny_bert(folder: Path, seed: int = 0) -> Path:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    config = BertConfig(
        vocab_size=len(specials) + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    torch.manual_seed(seed)
    BertModel(config).save_pretrained(folder)
    tokenizer = word_tokenizer(specials, unknown="[UNK]", first="[CLS]", last="[SEP]")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
    ).save_pretrained(folder)
    return folder


def build_tiny_mpnet(folder: Path, seed: int = 0) -> Path:
    """MPNet's special tokens and its padding index 1, which shifts its positions by two."""
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    config = MPNetConfig(
        vocab_size=len(specials) + len(WORDS),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=514,
    )
    torch.manual_seed(seed)
    MPNetModel(config).save_pretrained(folder)
    tokenizer = word_tokenizer(specials, unknown="<unk>", first="<s>", last="</s>")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=512,
    ).save_pretrained(folder)
    return folder


def sentence(words: random.Random, length: int) -> str:
    return " ".join(words.choices(WORDS, k=length))


def write_triples(path: Path, count: int, seed: int = 0) -> Path:
    """MS MARCO's shape: queries of a few words, passages of some 58, one hard negative; query words recur."""
    words = random.Random(seed)
    lines = []
    for _ in range(count):
        query = sentence(words, words.randint(3, 12))
        positive = f"{sentence(words, words.randint(20, 40))} {query} {sentence(words, words.randint(10, 40))}"
        lines.append({"query": query, "positive": positive, "negative": sentence(words, words.randint(30, 90))})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_collection(folder: Path, count: int, split: str = "test", seed: int = 1) -> Path:
    """A task in BEIR's layout: each query's words recur in its passage."""
    words = random.Random(seed)
    (folder / "qrels").mkdir(parents=True)
    corpus, queries, qrels = [], [], ["query-id\tcorpus-id\tscore\n"]
    for number in range(count):
        query = sentence(words, 6)
        text = f"{sentence(words, 8)} {query} {sentence(words, 8)}"
        corpus.append(json.dumps({"_id": f"d{number}", "title": sentence(words, 2), "text": text}) + "\n")
        queries.append(json.dumps({"_id": f"q{number}", "text": query}) + "\n")
        qrels.append(f"q{number}\td{number}\t1\n")
    (folder / "corpus.jsonl").write_text("".join(corpus), encoding="utf-8")
    (folder / "queries.jsonl").write_text("".join(queries), encoding="utf-8")
    (folder / "qrels" / f"{split}.tsv").write_text("".join(qrels), encoding="utf-8")
    return folder


def word_tokenizer(specials: list[str], unknown: str, first: str, last: str) -> Tokenizer:
    vocabulary = {word: number for number, word in enumerate(specials + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])]
    )
    return tokenizer
