"""Load an encoder from whatever folder people have; save one folder that loads everywhere.

A saved folder is at once a Hugging Face model (`AutoModel`), a sentence-transformers model, m3tune's own and, with both
head files, FlagEmbedding's (`BGEM3FlagModel`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from m3tune.config import ModelConfig
from m3tune.errors import M3TuneError, ModelError
from m3tune.model.backbone import load_backbone, load_tokenizer, longest_text_tokens, quiet_transformers
from m3tune.model.encoder import Encoder
from m3tune.model.head_files import load_heads, save_heads
from m3tune.model.settings import apply_overrides, read_settings, write_settings
from m3tune.paths import looks_like_path, resolve_path

_CONTENT_SUFFIXES = {".json", ".safetensors", ".bin", ".pt", ".txt", ".model"}
_NOT_NEEDED = ("onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot", "imgs/*")


def model_folder(spec: str) -> Path:
    """The local folder of a model named by path, `package:NAME/FOLDER` or Hub id, downloaded where need be.

    What looks like a path is never tried as a Hub id. Raises ModelError.
    """
    if not (looks_like_path(spec) or Path(spec).exists()):
        return _download(spec)
    try:
        folder = resolve_path(spec, "the model")
    except M3TuneError as error:
        raise ModelError(error.what, where=error.where, fix=error.fix) from None
    if not folder.is_dir():
        raise ModelError("this is a file, and a model is a folder", where=folder, fix="name the folder that it is in")
    return folder


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        with quiet_transformers():
            return Path(snapshot_download(hub_id, ignore_patterns=list(_NOT_NEEDED)))
    except HFValidationError:
        raise ModelError(
            "neither an existing folder nor a Hub id (owner/name)", where=hub_id, fix="check it for a typo"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            "the Hub has no such model, or it is private",
            where=hub_id,
            fix="check the spelling; for a private model log in with `hf auth login`",
        ) from None
    except (LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            "no such folder is here; as a model of the Hub it is not in the local cache, and the Hub cannot be reached "
            f"({type(error).__name__})",
            where=hub_id,
            fix="check the path, connect to the network, or name a folder that holds the model",
        ) from None


def load_encoder(config: ModelConfig) -> tuple[Encoder, str]:
    """The encoder that `config` names, in float32 on the CPU, not training, and where its settings come from."""
    folder = model_folder(config.path)
    backbone = load_backbone(folder, trust_remote_code=config.trust_remote_code)
    tokenizer = load_tokenizer(folder, trust_remote_code=config.trust_remote_code)
    longest_tokens = longest_text_tokens(backbone, tokenizer)
    settings, why = read_settings(folder, longest_tokens)
    settings = apply_overrides(settings, config, longest_tokens)
    if settings.heads != ("dense",):
        fresh = [f"{head} (new, untrained)" if head in config.new_heads else head for head in settings.heads]
        why += f"; heads: {', '.join(fresh)}"
    heads = load_heads(folder, settings.heads, int(backbone.config.hidden_size), config)
    return Encoder(backbone, tokenizer, settings, heads, config.new_heads).eval(), why


def model_fingerprint(config: ModelConfig) -> str:
    """A content hash of every file of the model that can change a vector."""
    folder = model_folder(config.path)
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix in _CONTENT_SUFFIXES and "onnx" not in file.parts:
            digest.update(file.relative_to(folder).as_posix().encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Save weights, heads, tokenizer and settings to `folder`; see the module's docstring for who can load it."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        encoder.backbone.save_pretrained(folder)
    # What serves the model without m3tune cuts texts at this length.
    encoder.tokenizer.model_max_length = max(encoder.settings.query_max_tokens, encoder.settings.passage_max_tokens)
    encoder.tokenizer.save_pretrained(folder)
    save_heads(encoder.heads, folder)
    write_settings(encoder.settings, folder, encoder.dimension)
