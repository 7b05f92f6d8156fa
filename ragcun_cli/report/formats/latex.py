r"""A table as LaTeX with booktabs and siunitx, which compiles as printed.

Figures are in siunitx's S columns, aligned at the decimal point. An S column takes bold numbers, not underlined ones;
these are set as text of the column's full width, so that they line up with the numbers. Marks have no width.
"""

from __future__ import annotations

from collections.abc import Sequence

from ragcun_cli.report.table import BETTER, WORSE, Cell, FigureColumn, ResultTable, origin_line

PACKAGES = ("booktabs", "graphicx", "siunitx")
LONGEST_PAGE = 40  # rows: longer tables are split into several with the same number
MARKS = {BETTER: r"\dag", WORSE: r"\ddag"}
NUMBERS = r"\sisetup{detect-weight=true, mode=text, separate-uncertainty=true, retain-zero-uncertainty=true}"
# Shrink only tables wider than the page.
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def to_latex(table: ResultTable) -> str:
    """Write the table as LaTeX; its first lines name the packages it needs."""
    heads = [escape_latex(stub).capitalize() for stub in table.stubs]
    heads += [f"{{{escape_latex(column.label)}}}" for column in table.columns]
    layout = "l" * len(table.stubs) + " " + " ".join(column.layout for column in _columns(table))
    caption = escape_latex(" ".join(part for part in (table.caption, table.marks) if part))
    note = escape_latex(" ".join(table.notes))
    lines = [f"% \\usepackage{{{', '.join(PACKAGES)}}}", f"% {origin_line(table)}"]
    rows = latex_rows(table)
    for start in range(0, max(1, len(rows)), LONGEST_PAGE):
        stop = min(start + LONGEST_PAGE, len(rows))
        body = []
        for number in range(start, stop):
            if number > start and table.rows[number].stubs[1:] != table.rows[number - 1].stubs[1:]:
                body.append(r"\addlinespace")
            body.append(rows[number])
        lines += _float(
            caption if start == 0 else "(continued)", layout, " & ".join(heads) + r" \\", body,
            note if stop == len(rows) else "", continued=start > 0,
        )  # fmt: skip
    return "\n".join(lines) + "\n"


def latex_rows(table: ResultTable) -> list[str]:
    """One line for each row."""
    columns = _columns(table)
    return [
        " & ".join([*map(escape_latex, row.stubs), *(column.cells[number] for column in columns)]) + r" \\"
        for number, row in enumerate(table.rows)
    ]


def _columns(table: ResultTable) -> list[_LatexColumn]:
    return [
        _latex_column([row.cells[place] for row in table.rows], column) for place, column in enumerate(table.columns)
    ]


def _float(caption: str, layout: str, head: str, body: Sequence[str], note: str, continued: bool) -> list[str]:
    """One table; a continuation of a long one keeps its number."""
    return [
        *([r"\addtocounter{table}{-1}"] if continued else []),
        r"\begin{table}",
        r"  \centering",
        rf"  {NUMBERS}",
        rf"  \caption{{{caption}}}\smallskip",
        rf"  {FIT}",
        rf"  \begin{{tabular}}{{{layout}}}",
        r"    \toprule",
        f"    {head}",
        r"    \midrule",
        *(f"    {line}" for line in body),
        r"    \bottomrule",
        r"  \end{tabular}}",
        *([rf"  \par\smallskip\parbox{{\linewidth}}{{\footnotesize {note}}}"] if note else []),
        r"\end{table}",
    ]


class _LatexColumn:
    """A column as LaTeX: its layout, and its cells."""

    def __init__(self, layout: str, cells: list[str]) -> None:
        self.layout = layout
        self.cells = cells


def _latex_column(cells: Sequence[Cell], column: FigureColumn) -> _LatexColumn:
    printed = [text for cell in cells if (text := cell.printed(column.digits)) is not None]
    deviations = [text for cell in cells if (text := cell.printed_deviation(column.digits)) is not None]
    whole = max((len(text.lstrip("-").partition(".")[0]) for text in printed), default=1)
    sign = "-" if any(text.startswith("-") for text in printed) else ""
    # In digits of the last place: ± 1.22 is (122).
    spread = f"({max(len(text.replace('.', '').lstrip('0')) or 1 for text in deviations)})" if deviations else ""
    layout = f"S[table-format={sign}{whole}.{column.digits}{spread}]"
    widest = max(deviations, key=len, default="")
    return _LatexColumn(layout, [_cell(cell, column.digits, whole, widest) for cell in cells])


def _cell(cell: Cell, digits: int, whole: int, widest_deviation: str) -> str:
    text = cell.printed(digits)
    if text is None:
        return "{---}"
    deviation = cell.printed_deviation(digits)
    number = text if deviation is None else f"{text} +- {deviation}"
    mark = rf"\rlap{{\textsuperscript{{{MARKS[cell.mark]}}}}}" if cell.mark else ""
    if cell.second:
        lacking = "0" * (whole - len(text.lstrip("-").partition(".")[0]))
        padding = rf"\phantom{{{lacking}}}" if lacking else ""
        # Text is centred: if it is as wide as the column's numbers, it lines up with them.
        rest = rf"\phantom{{${{}}\pm{{}}${widest_deviation}}}" if widest_deviation and deviation is None else ""
        return rf"{{{padding}\underline{{\num{{{number}}}}}{mark}{rest}}}"
    # Braces keep the mark out of the number.
    return (r"\bfseries " if cell.best else "") + number + (f"{{{mark}}}" if mark else "")


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}",  # after a row's end it would begin an option
     '"': "''", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
    "±": r"$\pm$", "×": r"$\times$", "†": r"\dag{}", "‡": r"\ddag{}", "–": "--", "—": "---", "…": r"\dots{}",
}  # fmt: skip
# Latin letters that LaTeX reads as they are, whatever the font's encoding: of Latin-1 all but eth and thorn.
ACCENTED = frozenset(map(chr, range(0xC0, 0x100))) - frozenset("ÐÞðþ×÷")


def escape_latex(text: str) -> str:
    """Escape text so that LaTeX prints it literally; letters of scripts that need other fonts become their numbers."""
    text = text.replace("\n", " ")
    # Two hyphens would become a dash; a dash itself is written as two.
    text = text.replace("--", "-\0-").replace("--", "-\0-")
    return "".join(_LATEX.get(character, _plain(character)) for character in text)


def _plain(character: str) -> str:
    if (character.isascii() and character.isprintable()) or character in ACCENTED:
        return character
    return "{}" if character == "\0" else f"{{[}}U+{ord(character):04X}]"
