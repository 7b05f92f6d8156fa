"""Tokenise texts once, into a memory-mapped file that training reads by offset.

`<cache>/tokens/<key>/whole/`: ids.bin, all texts' tokens concatenated, in 16 bits if the vocabulary allows;
ends.bin, where each text ends; manifest.json with their digests. The key covers the texts, the tokenizer and the
maximum length, so a different file or limit uses a different folder. Damaged files are made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragcun_cli import files
from ragcun_cli.arrays import Numbers
from ragcun_cli.console import note
from ragcun_cli.data.cache import digest_of_texts, key_of, only_writer
from ragcun_cli.data.tokens import TokenBatch, TokenIds
from ragcun_cli.manifest import problem_with, read_manifest, seal

FORMAT = 1
TEXTS_AT_A_TIME = 8192  # the tokenizer uses all cores per call; tokens of this many texts are in memory


@dataclass(frozen=True)
class Tokenised:
    """Token ids of some texts, and how many of these were cut at the limit."""

    ids: list[list[int]]
    cut: int


@dataclass(frozen=True)
class TextTokenizer:
    """How to tokenise texts. digest: differs for different tokenizers; max_length: tokens at which texts are cut."""

    tokenize: Callable[[Sequence[str]], Tokenised]
    digest: str
    vocabulary: int
    max_length: int


@dataclass(frozen=True)
class TokenisedTexts:
    """Tokens of n texts on disk. ids: (tokens,), memory-mapped; ends: (n,) int64; cut: number of texts cut."""

    ids: TokenIds
    ends: Numbers
    cut: int

    @property
    def lengths(self) -> Numbers:
        """Number of tokens of each text, (n,)."""
        return np.diff(self.ends, prepend=0)

    def batch(self, texts: Numbers) -> TokenBatch:
        """Return the tokens of these texts, given by number, in this order."""
        ends = self.ends[texts]
        starts = np.where(texts > 0, self.ends[texts - 1], 0)
        pieces = [self.ids[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        return TokenBatch(np.concatenate(pieces) if pieces else self.ids[:0], ends - starts)


def tokenised_texts(
    texts: Sequence[str],
    tokenizer: TextTokenizer,
    cache: Path,
    on_done: Callable[[int], None] | None = None,
    digest: str | None = None,
) -> TokenisedTexts:
    """Return the texts' tokens from the cache, making them first if they are missing or damaged.

    `on_done(count)` is called as texts are tokenised; `digest` identifies the texts and is computed if not
    given.
    """
    digest = digest or digest_of_texts(texts)
    key = key_of(format=FORMAT, texts=digest, tokenizer=tokenizer.digest, max_length=tokenizer.max_length)
    place = cache / "tokens" / key
    folder = place / "whole"
    with only_writer(place):
        files.sweep_leftovers(place)
        problem = problem_with(folder) if folder.exists() else ""
        if problem:
            note(f"{folder}: {problem}; tokenising the texts again.")
        if problem is not None:
            _write(folder, texts, tokenizer, on_done)
    manifest = read_manifest(folder)
    ids = np.memmap(folder / "ids.bin", dtype=manifest["dtype"], mode="r") if manifest["tokens"] else np.empty(0, "u2")
    ends = np.fromfile(folder / "ends.bin", dtype=np.int64)
    return TokenisedTexts(ids, ends, manifest["cut"])


def _write(folder: Path, texts: Sequence[str], tokenizer: TextTokenizer, on_done: Callable[[int], None] | None) -> None:
    dtype = "uint16" if tokenizer.vocabulary <= 1 << 16 else "uint32"
    cut, lengths = 0, [np.empty(0, dtype=np.int64)]
    with files.new_folder(folder) as temporary:
        with (temporary / "ids.bin").open("wb") as stream:
            for some in _in_parts(texts):
                tokenised = tokenizer.tokenize(some)
                batch = TokenBatch.of(tokenised.ids)
                stream.write(batch.ids.astype(dtype).tobytes())
                lengths.append(batch.lengths)
                cut += tokenised.cut
                if on_done is not None:
                    on_done(len(some))
        ends = np.cumsum(np.concatenate(lengths))
        (temporary / "ends.bin").write_bytes(ends.tobytes())
        tokens = int(ends[-1]) if len(ends) else 0
        seal(temporary, format=FORMAT, dtype=dtype, texts=len(texts), tokens=tokens, cut=cut)


def _in_parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        yield texts[start : start + TEXTS_AT_A_TIME]
