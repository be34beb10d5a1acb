"""Loss functions: pure functions of tensors, each tested against a plain double loop."""

from .contrastive import info_nce, sigmoid_loss

__all__ = ["info_nce", "sigmoid_loss"]
