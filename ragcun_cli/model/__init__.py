"""The encoder: a pre-trained backbone, mean pooling, a projection head; and its folder on disk.

`load_encoder(folder)` opens a model that ragcun trained, `IsotropicGaussianEncoder.untouched(name)` any other.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ragcun_cli.model.encoder import IsotropicGaussianEncoder
    from ragcun_cli.model.folder import load_encoder, save_encoder

__all__ = ["IsotropicGaussianEncoder", "load_encoder", "save_encoder"]


def __getattr__(name: str) -> object:
    # Imported only on request: it needs torch, which finding a model's files does not.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ragcun_cli.model import encoder, folder

    return getattr(encoder if name == "IsotropicGaussianEncoder" else folder, name)
