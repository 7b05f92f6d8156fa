"""What files hold: texts, ids, and content that is almost right."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import strategies as st

from ragcun_cli.errors import RagcunError

# Surrogates cannot be written as UTF-8, and what counts as blank is Unicode's: texts of blanks alone are refused.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("aA0 \t\n\"'\\,;é中🙂\u200b\u00a0")
TEXTS = st.text(CHARACTERS, min_size=1, max_size=12).filter(str.strip)
IDS = st.text(st.sampled_from("abAB019_-.:/é中\"'"), min_size=1, max_size=6)


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder of its own for each drawn input: pytest's `tmp_path` is one for all of them."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """Valid content with a few places overwritten, removed, repeated or cut off."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = min(len(content), start + draw(st.integers(0, 12)))
        content[start:stop] = draw(
            st.binary(max_size=6)
            | st.sampled_from([b"", b"\x00", b"\xff", b"\r", b"\n\n", b"\t\t", b'"', b"null", b"{", b"]", b"1e999"])
            | st.just(bytes(content[start:stop]) * 2)
        )
    return bytes(content)


def answers_or_refuses(read: Callable[[], object]) -> None:
    """Whatever a file holds, ragcun either reads it or says in its own words what is wrong, with a message."""
    try:
        read()
    except RagcunError as error:
        refusal = str(error)
    except Exception as error:
        pytest.fail(f"{type(error).__name__}: {error}")
    else:
        return
    assert refusal.strip()
