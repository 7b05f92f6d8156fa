"""A model card: what the model is, how it scored, what it was trained on, and what it is not good for.

Every figure comes from a result on disk; if there is none, the card says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ragcun_cli.data.registry import TRAINING, known_dataset
from ragcun_cli.report.collect import ModelResults

TRAINED_KEYS = (
    "base_model", "freeze_base", "contrastive", "temperature", "isotropy", "lambda_isotropy", "lambda_reg", "epochs",
    "max_steps", "batch_size", "gradient_accumulation_steps", "base_learning_rate", "projection_learning_rate",
    "max_length", "output_dim", "seed",
)  # fmt: skip
EXAMPLE = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
queries = model.encode(["how tall is mount everest"])
passages = model.encode(["Mount Everest is 8,849 metres high.", "Everest is a brand of hiking boots."])
print(model.similarity(queries, passages))  # negated Euclidean distance: the nearest has the highest value"""


@dataclass(frozen=True)
class CardFacts:
    """The facts on a card. name: where the model is available. settings: ragcun.json's. recipe, step: None if unknown.

    results: for exactly these weights, or None. onnx: whether an ONNX graph is included. version: of the ragcun that
    trained it, if known. chosen: whether the dev set chose these weights.
    """

    name: str
    settings: Mapping[str, Any]
    recipe: Mapping[str, Any] | None
    step: int | None
    results: ModelResults | None
    licence: str | None
    onnx: bool
    version: str | None
    chosen: bool


def model_card(facts: CardFacts) -> str:
    """README.md of a model folder, with the metadata that the hub reads."""
    sections = [_header(facts), _what(facts), _use(facts), _measured(facts), _training(facts), _limits(facts)]
    return "\n\n".join(sections) + "\n"


def _header(facts: CardFacts) -> str:
    base = str(facts.settings["base_model"])
    metadata: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "dense-retrieval", "ragcun"],
    }
    if facts.licence is not None:
        metadata["license"] = facts.licence
    if _is_hub_id(base):
        metadata["base_model"] = base
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n\n# {facts.name.rsplit('/', 1)[-1]}"


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and ":" not in name


def _what(facts: CardFacts) -> str:
    settings = facts.settings
    return (
        f"A text encoder for dense retrieval: `{settings['base_model']}`, mean-pooled, with a projection head "
        f"({settings['head']}) to {settings['output_dim']} dimensions. Embeddings are not normalised and are compared "
        f"by Euclidean distance. Trained with ragcun{f' {facts.version}' if facts.version else ''}."
    )


def _use(facts: CardFacts) -> str:
    graph = (
        "\n\n`model.onnx` is the same model as one graph: inputs `input_ids` and `attention_mask` (texts, tokens), "
        "output `sentence_embedding`."
        if facts.onnx
        else ""
    )
    return f"## Use\n\n```python\n{EXAMPLE.format(name=facts.name)}\n```{graph}"


def _measured(facts: CardFacts) -> str:
    results = facts.results
    if results is None or not results.datasets:
        return "## Results\n\nNone were measured, so none are claimed. `ragcun eval beir --model FOLDER` measures them."
    lines = ["| dataset | split | nDCG@10 | IsoScore of the passages |", "| --- | --- | ---: | ---: |"]
    for name, result in sorted(results.datasets.items()):
        isoscore = results.isoscore(name)
        shown = "" if isoscore is None else f"{isoscore:.3f}"
        lines.append(f"| {name} | {result.split} | {100 * result.metrics['ndcg@10']:.2f} | {shown} |")
    trained_on = None if facts.recipe is None else Path(str(facts.recipe["data"]["train"])).stem
    seen = [name for name in results.datasets if name == trained_on]
    remark = f" This model trained on the train split of {', '.join(seen)}: that row is not zero-shot." if seen else ""
    return (
        "## Results\n\n" + "\n".join(lines) + f"\n\nnDCG@10 x 100, exact search by Euclidean distance. One seed: "
        f"seed variance unknown.{remark}"
    )


def _training(facts: CardFacts) -> str:
    recipe = facts.recipe
    if recipe is None:
        return "## Training\n\nThe model's folder does not contain its recipe."
    data = recipe["data"]
    keys = "\n".join(f"| {key} | {recipe[key]} |" for key in TRAINED_KEYS if key in recipe)
    step = "" if facts.step is None else f" These are the weights after step {facts.step}."
    chosen = f" This model was chosen on the dev set: {_described(str(data['dev']))}" if facts.chosen else ""
    return (
        f"## Training\n\nData: {_described(str(data['train']))}{chosen}{step}\n\n"
        f"| key | value |\n| --- | --- |\n{keys}\n\n`recipe.yaml` lists all keys."
    )


def _described(source: str) -> str:
    """A data source with its licence, if known."""
    if source in TRAINING:
        each = TRAINING[source]
        return f"`{source}` ({each.task}; licence: {each.licence})."
    known = known_dataset(source)
    if known is not None:
        return f"`{source}` ({known.task}; licence: {known.licence})."
    return f"`{source.rsplit('/', 1)[-1]}` (licence not known to ragcun)."


def _limits(facts: CardFacts) -> str:
    limits = [
        f"Texts are cut at {facts.settings['max_length']} tokens.",
        "Distances are meaningful for this model only; embeddings of other models cannot be compared with them.",
        "Languages and subjects that neither the base model nor the training data cover were not tested.",
        "Restrictions in the licence of the training data may apply to this model too.",
    ]
    if facts.results is None:
        limits.insert(0, "No scores have been measured.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def results_of(models: Sequence[ModelResults], identity: str) -> ModelResults | None:
    """The results for exactly these weights, with untransformed embeddings."""
    for model in models:
        if model.entry.identity == identity and model.entry.is_plain:
            return model
    return None
