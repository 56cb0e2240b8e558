"""An encoder with heads to be taught."""

import pytest
from heads import fresh


@pytest.fixture
def encoder(tiny_folders):
    """A tiny BERT with two new heads."""
    return fresh(tiny_folders)
