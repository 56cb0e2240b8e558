"""Fixtures that several test files share. That this file is here also puts `tiny` on the import path."""

import os

import pytest

# Before torch and huggingface_hub are imported: tiny models are fastest on one thread, and no test needs the network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tiny import KINDS, save_tiny_encoder, save_tiny_m3, tiny_collection


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory):
    """kind -> a folder with a random encoder of this kind. Never written to."""
    place = tmp_path_factory.mktemp("encoders")
    return {kind: save_tiny_encoder(place / kind, kind) for kind in KINDS}


@pytest.fixture(scope="session")
def m3_folder(tmp_path_factory):
    """A random model in the layout of BAAI/bge-m3. Never written to."""
    return save_tiny_m3(tmp_path_factory.mktemp("m3") / "m3")


@pytest.fixture(scope="session")
def collection():
    """Sixty questions, ninety passages."""
    return tiny_collection()
