"""Encoders of images and of acquisition metadata, and the model that aligns them."""

from .cimp import Cimp, CimpConfig, CimpOutput
from .denoiser import DoseNet, DoseNetConfig
from .encoders import ImageEncoder, MetadataEncoder
from .settings_reader import SettingsReader, SettingsReaderConfig
from .spectrum import log_polar_spectrum
from .statistics import image_statistics
from .structure_encoder import StructureEncoder, StructureEncoderConfig
from .translator import PatchDiscriminator, Translator, TranslatorConfig

__all__ = [
    "Cimp",
    "CimpConfig",
    "CimpOutput",
    "DoseNet",
    "DoseNetConfig",
    "ImageEncoder",
    "MetadataEncoder",
    "PatchDiscriminator",
    "SettingsReader",
    "SettingsReaderConfig",
    "StructureEncoder",
    "StructureEncoderConfig",
    "Translator",
    "TranslatorConfig",
    "image_statistics",
    "log_polar_spectrum",
]
