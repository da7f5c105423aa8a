"""Label noise: which labels of a run, or of a dataset made elsewhere, a person should look at.

>>> from autolabel.quality import find_noise                     # doctest: +SKIP
>>> find_noise(run)                                              # doctest: +SKIP
"""

from autolabel.quality.noise import NoiseOptions, NoiseResult, find_noise, read_quality

__all__ = ["NoiseOptions", "NoiseResult", "find_noise", "read_quality"]
