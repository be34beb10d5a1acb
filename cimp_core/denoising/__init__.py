"""Virtual dose: an image as it is expected at more electrons, with its uncertainty and a record of how it was made.

The folder is not named ``denoise``, for a subpackage of that name would replace the function `cimp_core.denoise` as
soon as anything imported it.
"""

from .denoised import Denoised, denoise

__all__ = ["Denoised", "denoise"]
