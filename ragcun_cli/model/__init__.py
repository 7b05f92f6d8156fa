"""The encoder: a pre-trained backbone, mean pooling, a projection head; and its folder on disk."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ragcun_cli.model.encoder import IsotropicGaussianEncoder

__all__ = ["IsotropicGaussianEncoder"]


def __getattr__(name: str) -> object:
    # Only when it is asked for: it brings torch, which finding a model's files does without.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ragcun_cli.model.encoder import IsotropicGaussianEncoder

    return IsotropicGaussianEncoder
