"""Version of the twin: written by ``python -m cimp_core.twin_freeze``, never by hand."""

TWIN_VERSION = "06a94f10cdc7"
SMALL_DIGEST = "df7a34ab8b44"
SMALL_REFERENCE = (
    (29164.917, 4172.863),
    (51404.822, 4791.064),
    (21827.295, 16497.069),
    (8985.414, 3186.562),
    (19794.508, 3495.086),
    (20446.69, 5759.601),
    (14736.914, 1707.884),
    (11045.716, 6725.287),
    (17262.64, 14428.814),
    (14325.423, 372.299),
)
