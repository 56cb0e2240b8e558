"""m3tune: fine-tune BGE-M3-class text encoders on your own data, and prove whether the result is better.

A library user starts at `m3tune.pipeline`; importing this package alone imports no torch.
"""

from importlib.metadata import version

__version__ = version("m3tune")
