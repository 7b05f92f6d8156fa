"""Names from elsewhere: none leads outside the folder it is joined to."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragcun_cli.safe_paths import UnsafeName, safe_join, shown_name

HOSTILE = {
    "../../.bashrc": "the part '..'",
    "results/../../.bashrc": "the part '..'",
    "results/..": "the part '..'",
    "..": "the part '..'",
    "/etc/cron.d/job": "an absolute path",
    "//server/share": "an absolute path",
    "results\\..\\..\\x": "a backslash",
    "results//x": "the part ''",
    "results/": "the part ''",
    "": "the part ''",
    "results/./x": "the part '.'",
    "results/x\0.json": "a control character",
    "results/x\ny": "a control character",
    "results/\x1b]52;c;cm0gLXJmIH4=\x07": "a control character",
    "results/x\u2028y": "a control character",
    "results/\udcff": "a control character",
    "a/" * 512 + "b": "longer than 1024 bytes",
    f"results/{'é' * 128}": "longer than 255 bytes",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeName) as refused:
        safe_join(tmp_path, name)
    assert HOSTILE[name] in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "name", ["a", "a/b.json", "..a/b..", "a b/'$(x)'", ".hidden", "é" * 127, "a:b", "a/" * 511 + "bc"]
)
def test_an_ordinary_name_is_joined(tmp_path: Path, name: str) -> None:
    assert safe_join(tmp_path, name) == tmp_path / name
    assert safe_join(Path(), name) == Path(name)
    assert safe_join(Path("/"), name) == Path("/") / name


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeName, match="it is not text"):
        safe_join(tmp_path, 3)  # type: ignore[arg-type]


def test_links_may_lead_anywhere_below_but_not_out(tmp_path: Path) -> None:
    root, beside = tmp_path / "root", tmp_path / "root-beside"
    (root / "real").mkdir(parents=True)
    beside.mkdir()
    (root / "inside").symlink_to(root / "real")
    (root / "outside").symlink_to(beside)
    (root / "itself").symlink_to(root)
    assert safe_join(root, "inside/x") == root / "inside" / "x"
    for name in ("outside/x", "outside", "itself"):
        with pytest.raises(UnsafeName, match="a link leads it outside"):
            safe_join(root, name)
    link = tmp_path / "link"
    link.symlink_to(root)
    assert safe_join(link, "real/x") == link / "real" / "x"


def test_a_long_name_is_shown_shortened() -> None:
    assert shown_name("x" * 255) == "x" * 255
    assert shown_name("x" * 256) == "x" * 255 + "…"
    assert shown_name("\x1b") == "\\x1b"
