"""Settings that people write by hand: small YAML files, read so that a slip of the pen is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import SchemaError, UnreadableFileError

__all__ = ["read_mapping"]


def read_mapping(path: str | Path, example: str) -> dict[str, Any]:
    """The settings of a YAML file.

    Parameters
    ----------
    path : path
    example : str
        How such a file may begin, for the message where there is nothing in it.

    Raises
    ------
    UnreadableFileError
        The file is missing, no text, no YAML, or names a setting twice.
    SchemaError
        It holds something else than settings.
    """
    try:
        settings = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UnreadableFileError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{path}: not a text file in UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise UnreadableFileError(f"{path}: not YAML{where} ({getattr(error, 'problem', None) or error})") from error
    if not isinstance(settings, dict):
        raise SchemaError(f"{path}: holds no settings; it begins, for example, with '{example}'")
    return settings


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which would take the last of two settings of one name without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a name that stands twice."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, (key, _) in enumerate(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value in names[:number]:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands there twice", key.start_mark)
        return super().construct_mapping(node, deep)
