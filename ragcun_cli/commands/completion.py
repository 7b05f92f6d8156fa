"""Shell completion for names of recipes, datasets and instance types. It is fast because nothing imports torch."""

from __future__ import annotations

from pathlib import Path


def recipes(incomplete: str) -> list[str]:
    """Complete shipped recipes; the shell completes the user's own files."""
    from ragcun_cli.recipe.shipped import shipped_recipes

    return _starting(incomplete, [path.stem for path in shipped_recipes()])


def downloads(incomplete: str) -> list[str]:
    """Complete what `ragcun data download` accepts: datasets and groups."""
    from ragcun_cli.data.registry import DOWNLOADS, KNOWN, TRAINING

    return _starting(incomplete, [*TRAINING, *DOWNLOADS, *(each.download_name for each in KNOWN.values() if each.md5)])


def datasets(incomplete: str) -> list[str]:
    """Complete the datasets of `ragcun eval beir`, also after a comma. Of data folders, only `data/` is searched."""
    from ragcun_cli.data.registry import GROUPS, KNOWN
    from ragcun_cli.data.sources import available_collections

    before, comma, last = incomplete.rpartition(",")
    names = dict.fromkeys([*GROUPS, *KNOWN, *available_collections(Path("data"))])
    return [before + comma + name for name in _starting(last, list(names))]


def models(incomplete: str) -> list[str]:
    """Complete run folders in `checkpoints/`; the shell completes other folders."""
    runs = [str(path.parent) for path in sorted(Path("checkpoints").glob("*/status.json"))]
    return _starting(incomplete, [*runs, "embedded:all-MiniLM-L6-v2"])


def instances(incomplete: str) -> list[str]:
    """Complete the instance types in ragcun's own table."""
    from ragcun_cli.aws.instances import KNOWN

    return _starting(incomplete, list(KNOWN))


def _starting(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
