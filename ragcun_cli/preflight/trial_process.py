"""Try a recipe in a separate process for preflight: `python -m ragcun_cli.preflight.trial_process RECIPE ROWS FOLDER`.

Prints the trial as JSON and writes a sample of the recipe's data: rows for a short training, and a small collection to
score it on.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from ragcun_cli import files
from ragcun_cli.console import print_error_json
from ragcun_cli.data.collection_writer import passage_record, write_beir_layout
from ragcun_cli.data.triples.table import TripleTable, evenly
from ragcun_cli.errors import RagcunError

PASSAGES = 100
TRAINING, COLLECTION = "rows.jsonl", "sample"


def write_sample(table: TripleTable, rows: int, folder: Path) -> None:
    """Write rows.jsonl with `rows` triples, evenly chosen, and sample/ in BEIR's layout: their first hundred passages
    and the queries that these answer.
    """
    chosen = evenly(len(table), rows)
    texts = table.texts
    negatives, owners = table.negatives_of(chosen)
    of_row: list[list[int]] = [[] for _ in chosen]
    for owner, negative in zip(owners.tolist(), negatives.tolist(), strict=True):
        of_row[owner].append(negative)
    lines = [
        {"query": texts[query], "positive": texts[positive], "negative": [texts[each] for each in others]}
        for query, positive, others in zip(
            table.queries[chosen].tolist(), table.positives[chosen].tolist(), of_row, strict=True
        )
    ]
    files.write_text(folder / TRAINING, _lines(lines))
    passages = list(dict.fromkeys(text for line in lines for text in (line["positive"], *line["negative"])))[:PASSAGES]
    place = {text: number for number, text in enumerate(passages)}
    answered = list({line["query"]: line["positive"] for line in lines if line["positive"] in place}.items())
    write_beir_layout(
        folder / COLLECTION,
        "test",
        (passage_record(f"p{number}", text) for text, number in place.items()),
        ((f"q{number}", query) for number, (query, _) in enumerate(answered)),
        ((f"q{number}", f"p{place[positive]}", 1) for number, (_, positive) in enumerate(answered)),
    )


def _lines(objects: list[dict[str, object]]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects)


def main(recipe_file: str, rows: int, folder: Path) -> None:
    """Try the recipe, then write its sample."""
    from ragcun_cli.recipe.loading import load_recipe
    from ragcun_cli.train.hardware import find_hardware
    from ragcun_cli.train.prepare import read_data
    from ragcun_cli.train.trial import try_recipe

    recipe = load_recipe(recipe_file)
    data = read_data(recipe)
    write_sample(data.table, rows, folder)
    print(json.dumps(asdict(try_recipe(recipe, data, find_hardware(), folder / "cache"))))


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    except RagcunError as error:
        print_error_json(error)
        sys.exit(error.exit_code)
