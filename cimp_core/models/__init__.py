"""Encoders of images and of acquisition metadata, and the model that aligns them."""

from .cimp import Cimp, CimpConfig, CimpOutput
from .encoders import ImageEncoder, MetadataEncoder
from .spectrum import log_polar_spectrum
from .statistics import image_statistics

__all__ = [
    "Cimp",
    "CimpConfig",
    "CimpOutput",
    "ImageEncoder",
    "MetadataEncoder",
    "image_statistics",
    "log_polar_spectrum",
]
