"""Texts are tokenised once; what is damaged or stale is made again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ragcun_cli.data import token_cache
from ragcun_cli.data.cache import cache_folder
from ragcun_cli.data.token_cache import TextTokenizer, Tokenised, TokenisedTexts, tokenised_texts
from ragcun_cli.errors import EnvironmentUnfit
from ragcun_cli.model import IsotropicGaussianEncoder
from tests.damage import KINDS, damage

TEXTS = [f"text {'word ' * (number % 9)}number {number}" for number in range(50)]


class Counting:
    """A tokenizer of words by length, that counts how many texts it was given."""

    def __init__(self, max_length: int = 6, digest: str = "words", vocabulary: int = 100) -> None:
        self.texts = 0
        self.tokenizer = TextTokenizer(self.tokenize, digest, vocabulary, max_length)

    def tokenize(self, texts: Sequence[str]) -> Tokenised:
        self.texts += len(texts)
        ids = [[len(word) for word in text.split()] for text in texts]
        limit = self.tokenizer.max_length
        return Tokenised([each[:limit] for each in ids], sum(len(each) > limit for each in ids))


def as_lists(tokens: TokenisedTexts) -> list[list[int]]:
    return [tokens.batch(np.array([number])).ids.tolist() for number in range(len(tokens.ends))]


def expected(limit: int = 6) -> list[list[int]]:
    return [[len(word) for word in text.split()][:limit] for text in TEXTS]


def test_texts_are_tokenised_once(tmp_path: Path) -> None:
    counting = Counting()
    first = tokenised_texts(TEXTS, counting.tokenizer, tmp_path)
    again = tokenised_texts(TEXTS, counting.tokenizer, tmp_path)
    assert counting.texts == len(TEXTS)
    assert as_lists(first) == as_lists(again) == expected()
    assert isinstance(again.ids, np.memmap)
    assert again.ids.dtype == np.uint16
    assert again.cut == first.cut == sum(len(text.split()) > 6 for text in TEXTS) > 0


def test_a_batch_is_the_texts_asked_for(tmp_path: Path) -> None:
    tokens = tokenised_texts(TEXTS, Counting().tokenizer, tmp_path)
    batch = tokens.batch(np.array([7, 0, 7]))
    assert batch.lengths.tolist() == [len(expected()[number]) for number in (7, 0, 7)]
    assert batch.ids.tolist() == expected()[7] + expected()[0] + expected()[7]


def test_parts_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "TEXTS_AT_A_TIME", 7)
    done: list[int] = []
    assert as_lists(tokenised_texts(TEXTS, Counting().tokenizer, tmp_path, done.append)) == expected()
    assert sum(done) == len(TEXTS)


@pytest.mark.parametrize(
    "other",
    [
        (TEXTS, Counting(max_length=5)),
        (TEXTS, Counting(digest="other words")),
        ([*TEXTS[:-1], TEXTS[-1] + "s"], Counting()),
        (["".join(TEXTS[:2]), *TEXTS[2:]], Counting()),
    ],
)
def test_other_texts_tokenizer_or_limit_are_another_cache(tmp_path: Path, other: tuple[list[str], Counting]) -> None:
    tokenised_texts(TEXTS, Counting().tokenizer, tmp_path)
    texts, counting = other
    tokenised_texts(texts, counting.tokenizer, tmp_path)
    assert counting.texts == len(texts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_cache_is_noticed_and_made_again(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenised_texts(TEXTS, Counting().tokenizer, tmp_path)
    (folder,) = (tmp_path / "tokens").glob("*/whole")
    damage(folder, "ids.bin", kind)
    counting = Counting()
    assert as_lists(tokenised_texts(TEXTS, counting.tokenizer, tmp_path)) == expected()
    assert counting.texts == len(TEXTS)
    assert "tokenising the texts again" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "null", '"x"', '{"files": 3}', '{"files": []}', '{"files": {"ids.bin": 1}}'])
def test_a_manifest_of_another_shape_is_damage_too(tmp_path: Path, content: str) -> None:
    tokenised_texts(TEXTS, Counting().tokenizer, tmp_path)
    (manifest,) = (tmp_path / "tokens").glob("*/whole/manifest.json")
    manifest.write_text(content)
    assert as_lists(tokenised_texts(TEXTS, Counting().tokenizer, tmp_path)) == expected()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAGCUN_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(EnvironmentUnfit, match="cannot write the cache there"):
        cache_folder()


def test_a_large_vocabulary_needs_more_than_16_bits(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(lambda texts: Tokenised([[70_000] for _ in texts], 0), "large", 100_000, 8)
    assert tokenised_texts(TEXTS, tokenizer, tmp_path).ids[0] == 70_000


def test_an_interrupted_tokenisation_leaves_no_cache(tmp_path: Path) -> None:
    def stops(texts: Sequence[str]) -> Tokenised:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenised_texts(TEXTS, TextTokenizer(stops, "words", 100, 6), tmp_path)
    assert list((tmp_path / "tokens").glob("*/*")) == []


def test_a_real_tokenizer_says_which_texts_it_cut(tiny_bert: Path) -> None:
    encoder = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=8, max_length=6)
    tokenised = encoder.text_tokenizer.tokenize(["w1 w2 w3 w4", "w1 w2 w3 w4 w5", "w1"])
    assert [len(ids) for ids in tokenised.ids] == [6, 6, 3]
    assert tokenised.cut == 1  # the first is just as long as the limit


def test_the_digest_is_the_tokenizers_own_and_not_of_its_last_call(tiny_bert: Path, tiny_mpnet: Path) -> None:
    encoder = IsotropicGaussianEncoder.from_base(str(tiny_bert), output_dim=8, max_length=6)
    before = encoder.text_tokenizer.digest
    encoder.tokenize(["w1 w2 w3 w4 w5 w6 w7"])
    encoder.tokenizer(["w1", "w1 w2"], padding=True)
    assert encoder.text_tokenizer.digest == before
    assert IsotropicGaussianEncoder.from_base(str(tiny_mpnet), output_dim=8).text_tokenizer.digest != before
