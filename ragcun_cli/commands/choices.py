"""The values of options that take one of a few: the parser refuses others, and help and completion show them."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "bf16", "fp16"]
Preset = Literal["scores", "paper", "geometry", "robustness", "cost"]
TableFormat = Literal["text", "latex", "markdown", "html", "csv", "json"]
SchemaFormat = Literal["json", "markdown"]
Correction = Literal["holm", "bh", "none"]
Pick = Literal["hardest", "sample", "corpus"]
