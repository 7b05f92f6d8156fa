"""The pages against the code: links, commands with their options, error messages, names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.commands.test_help import COMMANDS
from tests.conftest import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
EVERYWHERE = {"--help", "--json", "--quiet", "-q", "--version", "--install-completion"}


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(place), f"{page.name}: {target}"


def commands_in(text: str) -> list[list[str]]:
    """The words of every `ragcun …`, in blocks of code and in lines."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(ragcun [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    found = []
    for line in lines:
        line = re.split(r"\s#|  +|\||;| > |&&", line.strip().removeprefix("$ "))[0].replace("…", "")
        if line.startswith("ragcun "):
            line = re.sub(r"\$\(.*?\)", "--model x", line)  # the words of another command
            found.append(shlex.split(line)[1:])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_are_there(page: Path) -> None:
    for words in commands_in(page.read_text(encoding="utf-8")):
        if words and words[0].startswith("-"):
            assert words[0] in EVERYWHERE, words
            continue
        path = next((path for path in COMMANDS if tuple(words[: len(path)]) == path), None)
        if path is None:
            groups = {each[: len(words)] for each in COMMANDS}
            assert tuple(words) in groups, f"{page.name}: ragcun {' '.join(words)}"
            continue
        known = {flag for each in COMMANDS[path].params for flag in (*each.opts, *each.secondary_opts)} | EVERYWHERE
        used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= known, f"{page.name}: ragcun {' '.join(words)}: {used - known}"


def test_the_examples_of_contributing_run() -> None:
    import torch

    from ragcun_cli.data.registry import KnownDataset
    from ragcun_cli.losses.isotropy import IsotropyTerm
    from ragcun_cli.model import packed

    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    spread, term, dataset, backbone = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    regulariser: dict[str, Any] = {}
    exec(spread, regulariser)
    embeddings = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
    assert float(regulariser["mean_squared_cosine"](embeddings)) == pytest.approx(1 / 16, rel=0.02)
    terms = eval(f"{{{term}}}", {**regulariser, "IsotropyTerm": IsotropyTerm})
    assert terms["spread"].value(SimpleNamespace(embeddings=embeddings), None) > 0
    row = eval(dataset, {"KnownDataset": KnownDataset})
    assert (row.passages, row.md5) == (12_345, "md5 of the zip")
    families: dict[str, Any] = {}
    exec(backbone, families)
    assert families["BERT_LIKE"] - {"my-bert"} == packed.BERT_LIKE


def test_every_error_of_the_troubleshooting_page_is_one_that_the_code_says() -> None:
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    code = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "ragcun_cli").rglob("*.py"))
    flat = re.sub(r'"\s*\n\s*f?"', "", code)  # a message over several lines of the source
    flat = re.sub(r"\{[^{}]*\}", "{}", flat)
    quoted = [each for line in page.splitlines() if line.startswith("**`") for each in re.findall(r"`([^`]+)`", line)]
    assert len(quoted) > 15
    missing = []
    for message in quoted:
        if message.startswith(("--", "ragcun", "HF_", "NCCL", "GLOO", "DATA")) or " " not in message:
            continue
        for part in re.split(r"…|\b[A-Z]+\b(?::[A-Z]+)?|\b\d+\b|`", message):
            part = part.strip(" :")
            if len(part) > 3 and part not in flat:
                missing.append(f"{message}: {part!r}")
    assert missing == []


def test_names_of_the_contributing_page_are_in_the_code() -> None:
    page = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "ragcun_cli").rglob("*.py"))
    for name in re.findall(r"`([A-Z_a-z]\w+)`", page):
        if name in ("recipe", "report", "aws", "RAGCUN_TEST_DATA"):
            continue
        assert re.search(rf"\b{name}\b", code), name
    for place in re.findall(r"`((?:ragcun_cli|tests|recipes|docs)/[\w./]+\w)`", page):
        assert (REPOSITORY / place).exists() or place == "ragcun_cli/losses/spread.py", place
