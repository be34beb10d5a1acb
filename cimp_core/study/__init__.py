"""Studies on a data set: what simple statistics can tell of the settings, and what any observer could.

`statistics` are hand-made numbers of an image, `control` what gradient boosting makes of them, `ceiling` how well the
settings could be found by an oracle that knows each of them to a stated precision.
"""
