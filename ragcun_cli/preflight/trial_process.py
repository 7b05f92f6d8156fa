"""The process in which preflight tries a recipe: `python -m ragcun_cli.preflight.trial_process RECIPE ROWS FOLDER`.

Prints the trial as JSON and writes the sample that the short training is made with.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from ragcun_cli.console import print_error_json
from ragcun_cli.errors import RagcunError


def main(recipe_file: str, rows: int, folder: Path) -> None:
    """Try the recipe, then write its sample."""
    from ragcun_cli.preflight.sample import write_sample
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
