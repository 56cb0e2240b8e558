"""Selections that end in the middle."""

import contextlib

import pytest

from m3tune import contending


@contextlib.contextmanager
def cut_off_at(contender):
    """What is inside is interrupted when `contender` is to be measured; afterwards measuring is whole again."""
    real = contending.measure_encoder

    def measure(encoder, name, *rest):
        if name == contender:
            raise KeyboardInterrupt
        return real(encoder, name, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(contending, "measure_encoder", measure)
        with pytest.raises(KeyboardInterrupt):
            yield
