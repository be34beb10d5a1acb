"""Physics of a HAADF-STEM image: specimen, optics, scattering, detector and the habits of a lab.

Only NumPy and SciPy are needed. Public quantities are SI; crystal data and the tables made from them are in
angstrom and per angstrom, as they are published.
"""
