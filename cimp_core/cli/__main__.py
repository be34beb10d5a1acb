"""``python -m cimp_core.cli``: the command ``cimp``, for launchers that want a module."""

from . import main

main()
