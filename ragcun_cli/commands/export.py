"""`ragcun export`: prepare a trained model for others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import typer

from ragcun_cli.commands import completion
from ragcun_cli.console import note, print_json
from ragcun_cli.errors import UsageError


def export(
    model: str = typer.Argument(
        ..., help="A run folder (its best model) or a model folder.", autocompletion=completion.models
    ),
    destination: Path = typer.Argument(..., metavar="DEST", help="The folder to write."),
    onnx: bool = typer.Option(False, "--onnx", help="Also write model.onnx, checked against the model's values."),
    results: Path = typer.Option(Path("results"), "--results", help="Folder with the results for the model card."),
    licence: str | None = typer.Option(
        None, "--licence", help="Licence of the model, as named on the Hub, such as cc-by-nc-4.0; omitted if not given."
    ),
    push: str | None = typer.Option(
        None, "--push", metavar="OWNER/NAME", help="Also upload it to the Hugging Face Hub; HF_TOKEN must permit this."
    ),
    public: bool = typer.Option(False, "--public", help="With --push: make the repository public (default: private)."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an existing exported model."),
    json_output: bool = typer.Option(False, "--json", help="Print what was written as JSON."),
) -> None:
    """Write a model folder that sentence-transformers loads, with a model card: measured results, training, limits.

    --onnx adds the same model as one graph for any number and length of texts, with values equal to within 1e-4. With
    --push the folder is uploaded to the Hub as one commit.

    Example: ragcun export checkpoints/isotropy my-encoder --onnx
    """
    from ragcun_cli.exporting import export_model, require_destination, require_repository
    from ragcun_cli.exporting import push as push_to_hub
    from ragcun_cli.imports import require_onnx

    if push is not None:
        require_repository(push)
    elif public:
        raise UsageError("--public applies only to what --push uploads: add --push")
    require_destination(destination, overwrite)
    if onnx:
        require_onnx()
    exported = export_model(model, destination, onnx, results, licence, push)
    address = None if push is None else push_to_hub(destination, push, public)
    if json_output:
        print_json({**dataclasses.asdict(exported), "address": address})
        return
    for sentence in exported.stale:
        note(sentence)
    card = f"has scores on {exported.results} datasets" if exported.results else "has no scores"
    why = "" if exported.results else f": {results}/ has no results for this model"
    note(f"{destination}/: the model and its card. The card {card}{why}.")
    if exported.onnx_difference is not None:
        note(f"model.onnx: values differ by at most {exported.onnx_difference:.1g}.")
    if address is not None:
        note(f"Uploaded: {address}")
    note(f'Use:  SentenceTransformer("{push or destination}")')
