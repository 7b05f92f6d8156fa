"""What the shell completes: names of recipes, datasets and instance types. Each answers in a moment, without torch."""

from __future__ import annotations

from pathlib import Path


def recipes(incomplete: str) -> list[str]:
    """Shipped recipes; files of one's own are the shell's."""
    from ragcun_cli.recipe.shipped import shipped_recipes

    return _starting(incomplete, [path.stem for path in shipped_recipes()])


def downloads(incomplete: str) -> list[str]:
    """What `ragcun data download` brings, and the groups."""
    from ragcun_cli.data.registry import DOWNLOADS, KNOWN, TRAINING

    return _starting(incomplete, [*TRAINING, *DOWNLOADS, *(each.download_name for each in KNOWN.values() if each.md5)])


def datasets(incomplete: str) -> list[str]:
    """What `ragcun eval beir` scores: after a comma, the next one. Of the data folder only `data/` is looked into."""
    from ragcun_cli.data.registry import GROUPS, KNOWN
    from ragcun_cli.data.sources import available_collections

    before, comma, last = incomplete.rpartition(",")
    names = dict.fromkeys([*GROUPS, *KNOWN, *available_collections(Path("data"))])
    return [before + comma + name for name in _starting(last, list(names))]


def models(incomplete: str) -> list[str]:
    """Run folders of `checkpoints/`; other folders are the shell's."""
    runs = [str(path.parent) for path in sorted(Path("checkpoints").glob("*/status.json"))]
    return _starting(incomplete, [*runs, "embedded:all-MiniLM-L6-v2"])


def instances(incomplete: str) -> list[str]:
    """The instance types of ragcun's own table."""
    from ragcun_cli.aws.instances import KNOWN

    return _starting(incomplete, list(KNOWN))


def _starting(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
