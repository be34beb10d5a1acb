"""Loss functions: pure functions of tensors, each tested against a plain double loop."""

from . import adversarial
from .contrastive import info_nce, sigmoid_loss
from .gathered import gather, gathered_info_nce, gathered_sigmoid_loss

__all__ = ["adversarial", "gather", "gathered_info_nce", "gathered_sigmoid_loss", "info_nce", "sigmoid_loss"]
