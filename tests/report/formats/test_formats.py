"""The same table for a paper, a page, a spreadsheet and a program."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ragcun_cli.report.formats import FORMATS
from ragcun_cli.report.formats.html import to_html
from ragcun_cli.report.formats.latex import escape_latex, to_latex
from ragcun_cli.report.formats.markdown import to_markdown
from ragcun_cli.report.formats.plain import to_csv, to_json
from ragcun_cli.report.table import BETTER, WORSE, Cell, FigureColumn, ResultTable, TableRow, read_origins
from ragcun_cli.report.tables import TableOptions, build_table
from tests.report.test_table import write_run

AWKWARD = r"""a_b&c%#$ {x}~^\ "q" 'r' `s` <t> |u| --v ± × é 中 [w]*"""

TABLE = ResultTable(
    caption="nDCG@10 x 100.",
    notes=("A note.",),
    marks="Best bold, second underlined.",
    stubs=("model",),
    columns=(FigureColumn("x_1"), FigureColumn("IsoScore", 3)),
    rows=(
        TableRow(("raw",), (Cell(5.5, second=True, sources=("r",)), Cell(0.5))),
        TableRow(("arm_1",), (Cell(60.0, 1.25, 3, best=True, mark=BETTER, sources=("a", "b")), Cell(-0.25, 0.01, 3))),
        TableRow(("arm_2",), (Cell(3.0, 0.5, 3, mark=WORSE), Cell(None))),
    ),
    options={"preset": "scores", "datasets": ["a--b"]},
)

# CI installs TeX; without it the table's source is still compared with what is expected.
needs_tex = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="there is no TeX here (Debian: texlive-latex-extra, texlive-science)"
)


def test_markdown() -> None:
    lines = to_markdown(TABLE).splitlines()
    assert lines[2:4] == [r"| model | x\_1 | IsoScore |", "| --- | ---: | ---: |"]
    assert lines[4] == "| raw | <u>5.50</u> | 0.500 |"
    assert lines[5] == r"| arm\_1 | **60.00** ± 1.25† | -0.250 ± 0.010 |"
    assert lines[6] == r"| arm\_2 | 3.00 ± 0.50‡ | – |"
    assert "A note." in lines


def test_latex() -> None:
    lines = [line.strip() for line in to_latex(TABLE).splitlines()]
    assert r"% \usepackage{booktabs, graphicx, siunitx}" in lines
    assert r"\begin{tabular}{l S[table-format=2.2(3)] S[table-format=-1.3(2)]}" in lines
    assert r"Model & {x\_1} & {IsoScore} \\" in lines
    assert r"raw & {\phantom{0}\underline{\num{5.50}}\phantom{${}\pm{}$1.25}} & 0.500 \\" in lines
    assert r"arm\_1 & \bfseries 60.00 +- 1.25{\rlap{\textsuperscript{\dag}}} & -0.250 +- 0.010 \\" in lines
    assert r"arm\_2 & 3.00 +- 0.50{\rlap{\textsuperscript{\ddag}}} & {---} \\" in lines


def test_latex_escapes_everything() -> None:
    assert escape_latex("a_b&c%") == r"a\_b\&c\%"
    assert escape_latex("<x> -- \\ |") == r"\textless{}x\textgreater{} -{}- \textbackslash{} \textbar{}"
    assert escape_latex("é 中") == "é {[}U+4E2D]"
    assert escape_latex("a---b") == "a-{}-{}-b"
    assert escape_latex("ęđþ") == "{[}U+0119]{[}U+0111]{[}U+00FE]"


class Cells(HTMLParser):
    """Rows of texts and of values."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.values: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        self.values += [str(value) for name, value in attrs if name == "data-value"]

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip("\n")


def test_html() -> None:
    cells = Cells()
    cells.feed(to_html(TABLE))
    assert cells.rows[0] == ["model", "x_1", "IsoScore"]
    assert cells.rows[2] == ["arm_1", "60.00 ± 1.25†", "-0.250 ± 0.010"]
    assert cells.rows[3][:3][2].startswith("–")
    assert cells.values == ["5.5", "0.5", "60.0", "-0.25", "3.0"]
    assert "<script>" not in to_html(ResultTable("<script>", (), "", ("m",), (), (), {}))


def test_csv_and_json_are_unrounded() -> None:
    rows = list(csv.reader(io.StringIO(to_csv(TABLE))))
    assert rows[0] == ["model", "x_1", "x_1 std", "IsoScore", "IsoScore std"]
    assert rows[1] == ["raw", "5.5", "", "0.5", ""]
    assert rows[3] == ["arm_2", "3.0", "0.5", "", ""]
    content = json.loads(to_json(TABLE))
    assert content["rows"][2] == {"model": "arm_2", "x_1": 3.0, "IsoScore": None}
    assert content["cells"][1]["x_1"] == {
        "value": 60.0, "deviation": 1.25, "seeds": 3, "against_baseline": "better", "sources": ["a", "b"],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["latex", "markdown", "html"])
def test_a_printed_table_says_where_it_comes_from(name: str) -> None:
    text = FORMATS[name](TABLE)
    assert read_origins(text) == [{"options": dict(TABLE.options), "provenance": TABLE.provenance}]
    line = next(line for line in text.splitlines() if TABLE.provenance in line)
    assert "--" not in line.removeprefix("<!--").removesuffix("-->")  # HTML's comments may not have it inside


def compiled(folder: Path, *tables: str) -> str:
    """The text of the pages that a TeX makes of tables, put as they are into a plain article."""
    packages = re.search(r"% \\usepackage\{(.*)\}", tables[0])
    assert packages is not None
    body = "\n".join(tables)
    head = f"\\documentclass{{article}}\n\\usepackage{{{packages[1]}}}\n"
    source = f"{head}\\begin{{document}}\n{body}\\end{{document}}\n"
    (folder / "page.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Overfull \\hbox" not in done.stdout, done.stdout[-3000:]
    assert "Float too large" not in done.stdout
    if shutil.which("pdftotext") is None:
        return ""
    return subprocess.run(["pdftotext", "-layout", "page.pdf", "-"], cwd=folder, capture_output=True, text=True).stdout


@needs_tex
def test_every_preset_compiles_as_printed(scored: Path, tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"runs/isotropy-seed{seed}", seed, 1.0)
    tables = [
        to_latex(build_table(scored / "results", TableOptions(preset=preset, runs=str(tmp_path / "runs"))))
        for preset in ("scores", "geometry", "cost", "robustness")
    ]
    text = compiled(tmp_path, *tables)
    assert not text or "isotropy" in text


@needs_tex
def test_the_paper_preset_compiles_as_printed(tmp_path: Path) -> None:
    from ragcun_cli.report.comparison import ComparisonSettings
    from ragcun_cli.report.scores import build_scores, paper_columns
    from tests.report.test_table import row

    rows = [row("whole", scifact=0.5, fiqa=0.4), row("part", scifact=0.61, msmarco=0.3)]
    compiled(tmp_path, to_latex(build_scores(rows, paper_columns(rows), ComparisonSettings(), None, {})))


@needs_tex
def test_awkward_names_compile(tmp_path: Path) -> None:
    names = (AWKWARD, "[v2] model", "模型", "Gęś", *(chr(code) for code in range(0xA1, 0x180)))
    rows = tuple(TableRow((name,), (Cell(1 / 7, second=True, mark=BETTER),)) for name in names)
    text = compiled(
        tmp_path, to_latex(ResultTable(AWKWARD, (AWKWARD,), "", ("model",), (FigureColumn(AWKWARD),), rows, {}))
    )
    assert not text or "[U+4E2D]" in text


@needs_tex
def test_long_tables_go_into_several(scored: Path, tmp_path: Path) -> None:
    table = build_table(scored / "results", TableOptions(preset="geometry"))
    rows = [TableRow(("all-mpnet-base-v2+whiten-0.5+cosine", "webis-touche2020", row.stubs[2]), row.cells)
            for row in table.rows]  # fmt: skip
    text = compiled(tmp_path, to_latex(replace(table, rows=tuple(rows) * 8)))
    assert not text or text.count("webis-touche2020") == 128
    assert not text or text.count("Table 1") == 4


def test_names_in_csv_are_no_formulas_and_no_commands() -> None:
    names = ("=cmd|'/c calc'!A1", "+1", "-1", "@x", "a\x1b[2Jb", "ordinary")
    table = replace(TABLE, rows=tuple(TableRow((name,), TABLE.rows[0].cells) for name in names))
    rows = list(csv.reader(to_csv(table).splitlines()))[1:]
    assert [row[0] for row in rows] == ["'=cmd|'/c calc'!A1", "'+1", "'-1", "'@x", "a\\x1b[2Jb", "ordinary"]
    assert list(csv.reader(to_csv(TABLE).splitlines()))[2][3] == "-0.25"  # figures are left as they are
