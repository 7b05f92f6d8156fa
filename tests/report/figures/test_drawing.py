"""The figures: drawn from real results, in three formats, the same each time; and why one is missing."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragcun_cli.errors import UsageError
from tests.conftest import RunCommand
from tests.report.scored import arm, dataset_at, make_dataset, score_model
from tests.report.test_table import write_run

NAMES = ["effects", "isotropy-and-score", "queries", "spectra", "cosines", "lengths", "training"]
STARTS = {"pdf": b"%PDF-", "svg": b"<?xml", "png": b"\x89PNG\r\n"}


def write_curves(folder: Path, seed: int, of: dict[str, Any] | None = None) -> None:
    write_run(folder, seed, 1.0, of)
    lines: list[dict[str, Any]] = [
        {"step": step, "loss": 3 / step, "contrastive": 2 / step, "isotropy": 1 + 1 / step, "isotropy_null": 1.0525,
         "variance": 0.1, "isoscore_positives": 0.2}
        for step in (1, 2, 3)
    ]  # fmt: skip
    lines += [{"step": step, "dev": {"ndcg@10": 0.4 + step / 30}} for step in (1, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def drawn_at(root: Path, runs: Path, **options: Any) -> tuple[dict[str, Any], dict[str, str]]:
    from ragcun_cli.report.context import load_context
    from ragcun_cli.report.figures.drawing import draw_all
    from ragcun_cli.report.selection import Selection

    drawn, left = draw_all(load_context(root / "results", Selection(**options), runs))
    return {each.name: each for each in drawn}, {each.name: each.why for each in left}


@pytest.fixture(scope="module")
def with_runs(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        write_curves(runs / f"baseline-seed{seed}", seed, arm())
        write_curves(runs / f"isotropy-seed{seed}", seed)
    return runs


def test_all_are_drawn(scored: Path, with_runs: Path) -> None:
    drawn, left = drawn_at(scored, with_runs)
    assert list(drawn) == NAMES
    assert left == {}


def test_effects_show_each_interval_and_fill_what_is_significant(scored: Path, with_runs: Path) -> None:
    axes = drawn_at(scored, with_runs)[0]["effects"].figure.axes[0]
    marks = [line for line in axes.lines if line.get_marker() != "None" and len(line.get_xdata()) == 1]
    assert len(marks) == 6
    filled = {round(float(np.asarray(line.get_xdata())[0]), 1): line.get_markerfacecolor() != "white" for line in marks}
    assert filled[25.3]
    assert not filled[1.2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]


def test_the_spectrum_of_a_gaussian_lies_in_the_band(tmp_path: Path) -> None:
    from ragcun_cli.report.figures.embedding_stats import marchenko_pastur

    draws = np.random.default_rng(1).normal(size=(2000, 200))
    eigenvalues = np.linalg.eigvalsh(np.cov(draws.T))
    low, high = marchenko_pastur(200, 2000)
    assert low * 0.95 < eigenvalues.min() < low * 1.1
    assert high * 0.9 < eigenvalues.max() < high * 1.05
    assert marchenko_pastur(300, 200)[0] == 0


def test_training_has_the_null_line_and_every_seed(scored: Path, with_runs: Path) -> None:
    figure = drawn_at(scored, with_runs)[0]["training"].figure
    panel = next(axes for axes in figure.axes if axes.get_title() == "isotropy term")
    flat = [line for line in panel.lines if len(set(np.asarray(line.get_ydata(), dtype=float))) == 1]
    assert [float(np.asarray(line.get_ydata())[0]) for line in flat] == [1.0525]
    assert len(panel.lines) == 2 * (3 + 1) + 1


def test_what_turned_up_one_thing_is_joined(scored: Path, with_runs: Path) -> None:
    axes = drawn_at(scored, with_runs)[0]["isotropy-and-score"].figure.axes[0]
    (path,) = [line for line in axes.lines if len(line.get_xdata()) == 2]
    assert float(np.asarray(path.get_ydata())[1]) > float(np.asarray(path.get_ydata())[0])  # baseline to isotropy


def test_cosines_of_relevant_passages_are_higher(scored: Path) -> None:
    content = json.loads((scored / "results/isotropy-seed0/one.histograms").read_text())["cosine"]
    middles = (np.array(content["edges"][1:]) + np.array(content["edges"][:-1])) / 2
    relevant, random = (np.average(middles, weights=content[kind]) for kind in ("positives", "random"))
    assert sum(content["positives"]) == sum(content["random"]) == 40
    assert relevant > 0.7 > 0.3 > random


def test_no_two_rows_look_alike() -> None:
    from ragcun_cli.report.figures.style import looks_of

    assert len(set(looks_of([str(number) for number in range(64)]).values())) == 64


def test_a_row_that_the_first_panel_lacks_is_in_the_legend(copied: Path, with_runs: Path) -> None:
    for path in (copied / "results").glob("isotropy-seed*/one.*"):
        path.unlink()
    for path in (copied / "results").glob("isotropy-seed*/isotropy.json"):
        content = json.loads(path.read_text())
        del content["one"]
        path.write_text(json.dumps(content))
    drawn, _ = drawn_at(copied, with_runs)
    for name in ("queries", "spectra", "cosines", "isotropy-and-score"):
        (legend,) = drawn[name].figure.legends
        assert "isotropy" in {text.get_text() for text in legend.get_texts()}, name


def test_what_is_left_out_says_why(copied: Path) -> None:
    for path in (copied / "results").glob("*/*"):
        if path.suffix in (".histograms", ".tsv"):
            path.unlink()
    drawn, left = drawn_at(copied, copied / "none")
    assert list(drawn) == ["effects", "isotropy-and-score", "queries"]
    assert left["cosines"].startswith("no histograms were measured: evaluate again")
    assert left["training"].startswith("found no run folder with a metrics.jsonl")


def test_without_a_baseline(tmp_path: Path) -> None:
    data = [dataset_at(make_dataset(tmp_path / "data" / "one"))]
    score_model(tmp_path / "results", "encoder", data, 0.9)
    drawn, left = drawn_at(tmp_path, tmp_path / "none")
    assert set(left) == {"effects", "queries", "training", "isotropy-and-score"}
    assert left["isotropy-and-score"] == "only one row has both scores and an IsoScore"  # no axis for one point
    assert "spectra" in drawn


def test_no_two_systems_share_a_colour() -> None:
    from ragcun_cli.report.figures.style import looks_of

    looks = looks_of([f"row{number}" for number in range(40)])
    assert len({look.colour for look in looks.values()}) == 40
    assert len({(look.marker, look.line) for look in looks.values()}) == 40


def test_of_nine_systems_curves_of_six_are_drawn_and_the_others_named(tmp_path: Path) -> None:
    data = [dataset_at(make_dataset(tmp_path / "data" / "one", queries=8))]
    for number in range(8):
        score_model(tmp_path / "results", f"encoder{number}", data, 0.9 - number / 20)
    score_model(tmp_path / "results", "baseline", data, 0.7, arm())
    drawn, _ = drawn_at(tmp_path, tmp_path / "none")
    for name in ("queries", "spectra", "cosines", "lengths"):
        assert drawn[name].caption.endswith(" Not drawn: encoder5, encoder6, encoder7 (choose with --rows)."), name
    (legend,) = drawn["spectra"].figure.legends
    assert len(legend.get_texts()) <= 7  # and the band
    assert "baseline" in {text.get_text().split(":")[0] for text in legend.get_texts()}
    assert "Lines join" not in drawn["isotropy-and-score"].caption  # no two of them are joined


def test_what_was_logged_or_scored_once_has_no_panel(scored: Path, with_runs: Path, tmp_path: Path) -> None:
    runs = shutil.copytree(with_runs, tmp_path / "runs")
    for path in runs.glob("*/metrics.jsonl"):
        lines = path.read_text().splitlines()
        once = [line for line in lines if '"dev"' in line][:1]
        path.write_text("".join(f"{line}\n" for line in [line for line in lines if '"dev"' not in line] + once))
    drawn, _ = drawn_at(scored, runs)
    titles = {axes.get_title() for axes in drawn["training"].figure.axes}
    assert "nDCG@10 x 100 on dev" not in titles
    assert "nDCG@10 on dev" not in drawn["training"].caption
    for path in runs.glob("*/metrics.jsonl"):
        path.write_text(path.read_text().splitlines()[0] + "\n")
    _, left = drawn_at(scored, runs)
    assert left["training"] == "nothing was logged or scored more than once"


def test_more_datasets_than_panels_are_said(tmp_path: Path) -> None:
    data = [dataset_at(make_dataset(tmp_path / "data" / f"d{number}", queries=5)) for number in range(8)]
    score_model(tmp_path / "results", "encoder", data, 0.9)
    drawn, _ = drawn_at(tmp_path, tmp_path / "none")
    assert drawn["spectra"].caption.endswith("2 more datasets are not shown; choose with --datasets.")
    assert len([axes for axes in drawn["spectra"].figure.axes if axes.get_title()]) == 6
    with pytest.raises(UsageError, match="--datasets d9"):
        drawn_at(tmp_path, tmp_path / "none", datasets=("d9",))


def test_the_command_writes_three_formats_that_are_the_same_each_time(
    ragcun: RunCommand, scored: Path, with_runs: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        done = ragcun("report", "figures", "--results", scored / "results", "--runs", with_runs, "--out", folder)
        assert done.exit_code == 0, done.stderr
        assert len(done.stdout.splitlines()) == 21
    for name in NAMES:
        for kind, start in STARTS.items():
            one, other = ((folder / f"{name}.{kind}").read_bytes() for folder in folders)
            assert one.startswith(start)
            assert one == other, f"{name}.{kind}"
    captions = (folders[0] / "captions.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in captions] == NAMES


def test_wrong_formats(ragcun: RunCommand, scored: Path, tmp_path: Path) -> None:
    done = ragcun("report", "figures", "--results", scored / "results", "--formats", "jpg", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "--formats jpg" in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_matplotlib(ragcun: RunCommand, scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    for command in ("figures", "page"):
        done = ragcun("report", command, "--results", scored / "results")
        assert done.exit_code == 4
        assert "pip install 'ragcun[figures]'" in done.stderr
