"""Results that were searched from made-up embeddings, and everything that is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RunCommand
from tests.pinned.masked import assert_pinned, content_of
from tests.report.scored import three_arms


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pinned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["ragcun", "eval", "beir"])  # a result says what made it
        three_arms(root)
    return root


def test_the_files_of_results(root: Path) -> None:
    names = sorted(str(path.relative_to(root)) for path in (root / "results").rglob("*") if path.is_file())
    assert_pinned("results/files.txt", "\n".join(names) + "\n", root)
    folder = root / "results" / "isotropy-seed1"
    for name in ("model.json", "isotropy.json", "one.json", "one.spectrum.tsv"):
        assert_pinned(f"results/{name}", content_of(folder / name), root)
    for name in ("one.run.gz", "one.queries.parquet"):  # long: their beginnings
        assert_pinned(f"results/{name}.txt", "\n".join(content_of(folder / name).splitlines()[:70]) + "\n", root)


@pytest.mark.parametrize("preset", ["scores", "geometry", "robustness"])
@pytest.mark.parametrize("form", ["text", "markdown", "latex", "csv", "html", "json"])
def test_tables(root: Path, ragcun: RunCommand, preset: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    done = ragcun("report", "table", "--preset", preset, "--format", form)
    assert_pinned(f"tables/{preset}.{form}", f"exit code {done.exit_code}\n{done.stdout}\n{done.stderr}", root)


@pytest.mark.parametrize("options", [[], ["--details"], ["--primary", "isotropy vs baseline"], ["--json"]])
def test_claims(root: Path, ragcun: RunCommand, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    done = ragcun("report", "claims", *options)
    name = "-".join(each.strip("-").replace(" ", "-") for each in options) or "plain"
    assert_pinned(f"claims/{name}.txt", f"exit code {done.exit_code}\n{done.stdout}\n{done.stderr}", root)


def test_the_page(root: Path, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    done = ragcun("report", "page", "--out", root / "report.html")
    assert done.exit_code == 0, done.stderr
    assert_pinned("page.html", (root / "report.html").read_text(encoding="utf-8"), root)


def test_lists(root: Path, ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    for name, command in (("expectations", ["report", "expectations"]), ("verify", ["report", "verify"])):
        done = ragcun(*command)
        assert_pinned(f"{name}.txt", f"exit code {done.exit_code}\n{done.stdout}\n{done.stderr}", root)
