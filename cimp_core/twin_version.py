"""Version of the twin: written by ``python -m cimp_core.twin_freeze``, never by hand."""

TWIN_VERSION = "0e12cc2e9e67"
SMALL_DIGEST = "b90f1b3ab0e6"
SMALL_REFERENCE = (
    (28743.081, 4351.439),
    (51283.638, 5002.5),
    (21827.295, 16497.069),
    (8993.949, 3180.365),
    (19860.003, 3534.317),
    (20207.155, 5786.227),
    (14644.538, 1737.658),
    (11077.579, 6723.594),
    (17384.23, 14559.794),
    (14325.423, 372.299),
)
