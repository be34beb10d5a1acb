"""Studies on a data set: what statistics can tell of the settings, what a model can, and what any observer could.

`statistics` are hand-made numbers of an image, `control` what gradient boosting makes of them, `ceiling` how well the
settings could be found by an oracle that knows each of them to a stated precision, `lattice` in how many images the
pixel size can be read from spots. `shipped` measures trained weights, `probes` what other ways of reading give,
`supervised` trains one of these, and `endpoints` sets model, control and ceiling against the targets.
`retrieval_curves` measures what retrieval depends on, `splits_compared` what a split hides, `ablation` what each part
of the method contributes, and `identifiability` what an image could tell at all, by the bounds of `fisher` and the
steps of `cascade`. `denoising` sets denoisers beside the truth. `blind_example` makes pictures for a blind study,
`blind_coverage` measures
how often the intervals of blind studies hold it.
`seeds` has the intervals of numbers over several trainings.
"""
