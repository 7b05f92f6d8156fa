"""The encoder: a pre-trained backbone, mean pooling, a projection head; and its folder on disk."""

from ragcun_cli.model.encoder import IsotropicGaussianEncoder

__all__ = ["IsotropicGaussianEncoder"]
