"""The errors a user meets: each says which file, what is wrong, why, and what to do."""

__all__ = ["CimpError", "NotHAADFError", "OutOfRangeError", "SchemaError", "UnreadableFileError"]


class CimpError(Exception):
    """Base of every error that bad input can cause."""


class NotHAADFError(CimpError):
    """No signal of the file is a HAADF-STEM image; the message says what each signal is."""


class UnreadableFileError(CimpError):
    """The file is missing, damaged, truncated, or of a format that cannot be read here."""


class SchemaError(CimpError):
    """A data set, checkpoint or result file does not follow its schema; every fault is named."""


class OutOfRangeError(CimpError):
    """A value or a request lies outside what is physical, recorded, or trained on."""
