"""The fingerprint of a local model: a hash of all that its vectors depend on.

It is taken from the loaded model, not from its files: saving a model again, moving its folder or loading it in memory
leaves it as it is, and whatever changes a vector changes it. Another version of transformers or of
sentence-transformers leaves it, too: an index, an adapter and a cache of vectors outlive an upgrade.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module

from vectune.errors import VectuneError
from vectune.runs import cache_folder, hash_files, hash_of, versions, write_json

# Settings that no vector depends on: where a model came from, how it was saved, how it is trained, what it returns, how
# it generates, and how the libraries pass values around.
SILENT_KEYS = frozenset(
    """
_name_or_path transformers_version dtype torch_dtype architectures tokenizer_class auto_map _attn_implementation
initializer_range initializer_factor problem_type id2label label2id num_labels gradient_checkpointing torchscript
use_cache return_dict output_hidden_states output_attentions chunk_size_feed_forward tie_word_embeddings pruned_heads
bos_token_id eos_token_id sep_token_id cls_token_id mask_token_id decoder_start_token_id
modality_config message_format module_input_name module_output_name unpad_inputs transformer_task
""".split()
)
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads")
SCHEME = 2  # of what is hashed: hashes kept by an earlier version are not taken
DROPOUT = "dropout"  # part of the names of settings that are read while training alone


def model_fingerprint(model: SentenceTransformer, prompts: Mapping[str, str], dimensions: int | None = None) -> str:
    """SHA-256 of weights, modules, tokenizer, prompts, sequence length and truncation; 64 hex digits.

    Precision is no part of it: an adapter learnt where bf16 is fast serves where it is not.
    """
    digest = hashlib.sha256()
    facts: dict[str, Any] = {
        "modules": [[type(module).__name__, _config(module)] for module in model],
        "prompts": dict(prompts),
        "max_length": str(model.max_seq_length),
        "dimensions": dimensions or model.truncate_dim,
    }
    if inner := [_inner_facts(name, module) for name, module in _inner_modules(model)]:
        facts["inner"] = inner
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    digest.update(_tokenizer_state(model.tokenizer).encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def kept_fingerprint(model: SentenceTransformer, prompts: Mapping[str, str], dimensions: int | None = None) -> str:
    """``model_fingerprint`` of a model loaded from a folder, kept on disk by its files' sizes and times."""
    folder = Path(str(getattr(model.transformers_model, "name_or_path", "")) or ".")
    files = sorted(folder.rglob("*")) if folder.is_dir() and (folder / "modules.json").is_file() else []
    if not files:
        return model_fingerprint(model, prompts, dimensions)
    dimensions = dimensions or model.truncate_dim
    facts: list[Any] = [SCHEME, hash_files(files), dict(prompts), str(model.max_seq_length), dimensions, versions()]
    kept = cache_folder() / "fingerprints" / f"{hash_of(facts)[:32]}.json"
    try:
        return str(json.loads(kept.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        found = model_fingerprint(model, prompts, dimensions)
    with suppress(OSError, VectuneError):  # a cache that cannot be written must not stop the work
        write_json(kept, {"folder": str(folder), "fingerprint": found})
    return found


def _inner_modules(model: SentenceTransformer) -> Iterator[tuple[str, Module]]:
    """The modules inside modules, as a Router's routes hold them; most models have none."""
    for name, module in model.named_modules(remove_duplicate=False):
        if "." in name and isinstance(module, Module):
            yield name, module


def _inner_facts(name: str, module: Module) -> list[Any]:
    """What the vectors of a route depend on besides weights; its tokenizer need not be the model's."""
    tokenizer = getattr(module, "tokenizer", None)
    state = hashlib.sha256(_tokenizer_state(tokenizer).encode()).hexdigest() if tokenizer is not None else ""
    length = getattr(module, "max_seq_length", None)
    return [name, type(module).__name__, _config(module), str(length), state]


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.detach().float().cpu().contiguous().view(-1).view(torch.uint8).numpy()


def _config(module: Any) -> Any:
    """A module's settings, and the transformer's config where there is one, as far as vectors depend on them."""
    own = _telling(module.get_config_dict()) if hasattr(module, "get_config_dict") else {}
    config: Any = getattr(module, "config", None)
    return {**own, "config": _chosen(config)} if hasattr(config, "to_dict") else own


def _chosen(config: Any) -> dict[str, Any]:
    """The sizes, and what is not as the class has it for these sizes.

    Versions of a library differ in which of the others they write out, and what the class does not know, no code reads.
    """
    sizes = {name: getattr(config, name) for name in SIZES if hasattr(config, name)}
    told = _telling(config.to_dict())
    try:
        usual = _telling(type(config)(**sizes).to_dict())
    except Exception:  # a class that comes with a model may want other arguments
        return told
    return {**{key: value for key, value in told.items() if key in usual and value != usual[key]}, **sizes}


def _telling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without what no vector depends on; settings of rotary positions one by one, as older versions have them."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if key in SILENT_KEYS or DROPOUT in str(key):
            continue
        if isinstance(value, Mapping) and str(key).startswith("rope_"):
            found |= _telling(value)
        else:
            found[key] = _telling(value) if isinstance(value, Mapping) else value
    return found


def _tokenizer_state(tokenizer: Any) -> str:
    """The tokenizer as JSON, without the padding and truncation that the last call left in it."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        return str(sorted(tokenizer.get_vocab().items())) if hasattr(tokenizer, "get_vocab") else ""
    state = json.loads(backend.to_str())
    state.pop("padding", None)
    state.pop("truncation", None)
    return json.dumps(state, sort_keys=True) + str(getattr(tokenizer, "padding_side", ""))
