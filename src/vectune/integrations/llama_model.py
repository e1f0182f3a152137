"""SentenceTransformersFinetuneEngine: LlamaIndex's engine over vectune's tuning of whole models."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from llama_index.core.base.embeddings.base import BaseEmbedding

from vectune.embedders.local import LocalEmbedder
from vectune.embedders.models import ARTIFACT_FILE
from vectune.embedders.options import EmbedOptions
from vectune.errors import DatasetError, ModelError, UsageError
from vectune.integrations.llama_arguments import LLAMA_BATCH, LLAMA_EPOCHS, LLAMA_RATE, refuse_unknown
from vectune.integrations.llama_data import QADataset, retrieval_dataset, with_dev_split
from vectune.integrations.llama_embedding import VectuneEmbedding
from vectune.integrations.llama_fit import fit_plainly
from vectune.progress import SILENT, Progress
from vectune.runs import check_output
from vectune.training.data import TrainingData
from vectune.training.defaults import settle
from vectune.training.dev import whole_dev
from vectune.training.methods import tune_with
from vectune.training.options import Method, TuneOptions
from vectune.training.result import TuneResult
from vectune.training.saving import save_artifact

if TYPE_CHECKING:
    from vectune.dataset import RetrievalDataset

# Keywords of sentence-transformers' fit: those that the constructor takes and does not need, and those unknown here.
CHECKPOINTS = ("checkpoint_path", "checkpoint_save_steps", "checkpoint_save_total_limit", "resume_from_checkpoint")
FIT_ALONE = {
    "train_objectives",
    "evaluator",
    "steps_per_epoch",
    "scheduler",
    "optimizer_class",
    "max_grad_norm",
    "callback",
}
READ = ("seed", "epochs", "batch", "rate", "weight_decay", "warmup")  # TuneOptions that count for LlamaIndex's training
FIT_HINT = "Leave it out, as LlamaIndex does with every keyword, or train with sentence-transformers' own trainer."


class SentenceTransformersFinetuneEngine:
    """Tune a sentence-transformers model on questions and nodes.

    The names are LlamaIndex's. What is left None follows from the data, and differs for the user's good: batches hold
    no question's own node twice (LlamaIndex shuffles, too, but questions of one node may be each other's negatives),
    batch and epochs come from the number of pairs, hard negatives are mined, bf16 is used where it is faster, dev is
    looked at as often as it pays, and the state that dev likes best is kept, which is the base model where nothing is
    better. ``like_llama_index=True`` restores LlamaIndex's training: batches of 10 as they are drawn, 2 epochs, fp32,
    no prompts, first node of each question, the last state (with ``val_dataset`` the best).

    Args:
        dataset: ours, or llama-index-finetuning's object.
        model_id: what to tune.
        model_output_path: the folder to write; ``SentenceTransformer(folder)`` opens it.
        batch_size: pairs in a step.
        val_dataset: chooses the state to keep; None cuts it from ``dataset``, by section, and trains on the rest, but
            with a ``loss`` or like LlamaIndex trains on all and keeps the last state.
        loss: a loss of sentence-transformers over ``engine.model`` or a model of its own, or a function that makes one
            from a model; None is InfoNCE with mined negatives. A given loss trains on shuffled pairs in fp32.
        epochs: passes over the pairs.
        show_progress_bar: on a terminal.
        evaluation_steps: steps between looks at dev.
        use_all_docs: every relevant node of a question, not only the first.
        trust_remote_code: run code that comes with the model.
        device: of the model that comes out, and of training with a ``loss`` or like LlamaIndex.
        save_checkpoints: accepted, as are the next three; there is always one checkpoint beside the output, and a
            killed run goes on from there by itself.
        resume_from_checkpoint: see ``save_checkpoints``.
        checkpoint_save_steps: see ``save_checkpoints``.
        checkpoint_save_total_limit: see ``save_checkpoints``.
        like_llama_index: see above.
        method: ``full``, ``lora`` or ``auto``; with a ``loss``, like LlamaIndex or without a dev split only ``full``.
        seed: of everything that is drawn.

    Attributes:
        result: what ``finetune`` came to; None before.
        model: the base before ``finetune``, the tuned model after it. What you set on it as ``max_seq_length`` counts.
        loss, epochs, evaluation_steps: as given, so that they may be None.
        loader, examples, evaluator, warmup_steps, checkpoint_path: as LlamaIndex has them, made when asked for. They
            cannot be set: ``finetune`` reads ``dataset`` and ``val_dataset``.
    """

    def __init__(
        self,
        dataset: QADataset,
        model_id: str = "BAAI/bge-small-en",
        model_output_path: str = "exp_finetune",
        batch_size: int | None = None,
        val_dataset: QADataset | None = None,
        loss: Any = None,
        epochs: int | None = None,
        show_progress_bar: bool = True,
        evaluation_steps: int | None = None,
        use_all_docs: bool | None = None,
        trust_remote_code: bool = False,
        device: Any = None,
        save_checkpoints: bool = False,
        resume_from_checkpoint: bool = False,
        checkpoint_save_steps: int = 500,
        checkpoint_save_total_limit: int = 0,
        *,
        like_llama_index: bool = False,
        method: Method = "full",
        seed: int = 0,
    ) -> None:
        self.dataset, self.val_dataset = dataset, val_dataset
        self.model_id, self.model_output_path = model_id, model_output_path
        self.batch_size, self.epochs, self.evaluation_steps = batch_size, epochs, evaluation_steps
        self.loss, self.show_progress_bar = loss, show_progress_bar
        self.use_all_docs = not like_llama_index if use_all_docs is None else use_all_docs
        self.trust_remote_code, self.device = trust_remote_code, device
        self.save_checkpoints, self.resume_from_checkpoint = save_checkpoints, resume_from_checkpoint
        self.checkpoint_save_steps = checkpoint_save_steps
        self.checkpoint_save_total_limit = checkpoint_save_total_limit
        self.like_llama_index, self.method, self.seed = like_llama_index, method, seed
        self.result: TuneResult | None = None
        self._model: Any = None
        self._length: int | None = None  # tokens that the model read when it was opened

    @property
    def model(self) -> Any:
        """The SentenceTransformer: the base before ``finetune``, the tuned model after it."""
        if self._model is None:
            from vectune.embedders.loading import load_model

            source = self.model_id if self.result is None else str(self.result.path)
            device = str(self.device or "auto")
            self._model = load_model(source, device=device, trust_remote_code=self.trust_remote_code)
            self._length = self._model.max_seq_length
        return self._model

    @property
    def checkpoint_path(self) -> str | None:
        """Where LlamaIndex puts checkpoints; ours is beside the output in any case."""
        return str(Path("checkpoints") / self.model_output_path) if self.save_checkpoints else None

    @property
    def loader(self) -> Any:
        """The pairs as LlamaIndex has them: torch's DataLoader, in the dataset's order, which training shuffles."""
        from torch.utils.data import DataLoader

        examples: Any = self.examples
        return DataLoader(examples, batch_size=self.batch_size or LLAMA_BATCH, collate_fn=list)

    @property
    def warmup_steps(self) -> int:
        """A tenth of the steps over ``loader``."""
        return int(len(self.loader) * (self.epochs or LLAMA_EPOCHS) * 0.1)

    @property
    def examples(self) -> list[Any]:
        """The pairs, as sentence-transformers' InputExample."""
        from sentence_transformers import InputExample

        return [InputExample(texts=list(pair)) for pair in self._pairs()]

    @property
    def evaluator(self) -> Any:
        """sentence-transformers' evaluator over ``val_dataset``; None without one."""
        if self.val_dataset is None:
            return None
        from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

        relevant = {query: set(nodes) for query, nodes in self.val_dataset.relevant_docs.items()}
        return InformationRetrievalEvaluator(self.val_dataset.queries, self.val_dataset.corpus, relevant)

    def finetune(self, **train_kwargs: Any) -> None:
        """Tune, and write the folder.

        Args:
            **train_kwargs: fields of ``TuneOptions`` (``rate=1e-5``, ``patience=0``, ``precision="fp32"`` …), or what
                sentence-transformers' ``fit`` calls them: ``optimizer_params={"lr": …, "weight_decay": …}``,
                ``weight_decay``, ``warmup_steps``, ``use_amp``, ``output_path``, ``show_progress_bar``,
                ``evaluation_steps``; its ``checkpoint_…`` are accepted as in the constructor.

        Raises:
            UsageError: an unknown name, one of ``fit`` that has no counterpart (``scheduler``, ``callback`` …), one
                that training with a ``loss``, like LlamaIndex or without a dev split does not read, or frozen weights
                in ``engine.model`` where that is not what is trained.
            DatasetError: the dataset is broken, or has fewer than two questions.
            OutputError: the folder holds something else.
        """
        options, warmup_steps = self._options(train_kwargs)
        data = retrieval_dataset(self.dataset, self.val_dataset, self.use_all_docs)
        if len(self.dataset.queries) < 2:
            raise DatasetError(
                f"questions in the dataset: {len(self.dataset.queries)}; one's text is another's negative.",
                "Give at least two; generate_qa_embedding_pairs asks nodes that failed again.",
            )
        out = Path(self.model_output_path)
        progress = Progress() if self.show_progress_bar else SILENT
        cut = None if self.like_llama_index or self.loss is not None else with_dev_split(data, options.seed, progress)
        if cut is None:
            self._refuse_unread(options)
            self.result = self._finetune_plainly(data, out, self._rising(options, warmup_steps), progress)
        else:
            self._refuse_frozen()
            self.result = tune_with(cut, out, self._planned(cut, options, warmup_steps), progress)
        self._model = None

    def get_finetuned_model(self, **model_kwargs: Any) -> BaseEmbedding:
        """The tuned model as LlamaIndex's embedding; queries and texts get the model's prompts of their role.

        Args:
            **model_kwargs: of ``VectuneEmbedding``.

        Raises:
            ModelError: nothing is tuned yet.
        """
        folder = Path(self.model_output_path)
        if not any((folder / name).exists() for name in (ARTIFACT_FILE, "modules.json")):  # the latter: LlamaIndex's
            raise ModelError(f"{folder}: there is no tuned model.", "Call finetune() first.")
        if self.device is not None or self.trust_remote_code:
            device = "auto" if self.device is None else str(self.device)
            options = EmbedOptions(device=device, trust_remote_code=self.trust_remote_code)
            model_kwargs = {"options": options, **model_kwargs}
        return VectuneEmbedding(folder, **model_kwargs)

    def _pairs(self) -> list[tuple[str, str]]:
        data, nodes = self.dataset, slice(None if self.use_all_docs else 1)
        return [
            (text, data.corpus[node]) for key, text in data.queries.items() for node in data.relevant_docs[key][nodes]
        ]

    def _options(self, given: dict[str, Any]) -> tuple[TuneOptions, int | None]:
        """The options that the keywords ask for, and ``warmup_steps``: a share, once the steps are known."""
        given = {name: value for name, value in given.items() if name not in CHECKPOINTS}
        self.model_output_path = str(given.pop("output_path", self.model_output_path))
        self.show_progress_bar = given.pop("show_progress_bar", self.show_progress_bar)
        self.evaluation_steps = given.pop("evaluation_steps", self.evaluation_steps)
        warmup_steps = given.pop("warmup_steps", None)
        params = dict(given.pop("optimizer_params", {}))
        refuse_unknown(params, ("lr", "weight_decay"), "optimizer_params")
        for theirs, ours in (("batch_size", "batch"), ("learning_rate", "rate")):
            if theirs in given:
                given[ours] = given.pop(theirs)
        given |= {ours: params[theirs] for theirs, ours in (("lr", "rate"), ("weight_decay",) * 2) if theirs in params}
        if given.pop("use_amp", False):
            given["precision"] = "bf16"
        if not given.pop("save_best_model", True):
            raise UsageError("finetune: the best state is kept where there is a dev split; there is no other way here.")
        for name in FIT_ALONE & given.keys():
            raise UsageError(f"finetune: '{name}' of sentence-transformers' fit has no counterpart here.", FIT_HINT)
        refuse_unknown(given, [field.name for field in dataclasses.fields(TuneOptions)], "finetune")
        made = {"method": self.method, "model": self.model_id, "seed": self.seed, "epochs": self.epochs,
                "batch": self.batch_size, "trust_remote_code": self.trust_remote_code,
                "max_length": self._set_length()}  # fmt: skip
        return TuneOptions(**{**made, **given}), warmup_steps

    def _refuse_unread(self, options: TuneOptions) -> None:
        """What LlamaIndex's training does not read must be what it does anyway."""
        does = {"method": "full", "model": self.model_id, "precision": "fp32", "max_length": self._set_length(),
                "trust_remote_code": self.trust_remote_code}  # fmt: skip
        where = "like LlamaIndex" if self.like_llama_index else "with a loss of your own"
        hint = f"Leave it out; these count there: {', '.join(READ)}, evaluation_steps, warmup_steps."
        if not self.like_llama_index and self.loss is None:
            where, hint = "without a dev split, which cannot be cut here", "Leave it out, or give a val_dataset."
        for field in dataclasses.fields(TuneOptions):
            value = getattr(options, field.name)
            if field.name not in READ and value not in (field.default, does.get(field.name)):
                raise UsageError(f"finetune: {field.name}={value!r} is not read by training {where}.", hint)

    def _refuse_frozen(self) -> None:
        weights = () if self._model is None or self.method == "lora" else self._model.parameters()
        if not all(weight.requires_grad for weight in weights):
            raise UsageError(
                "engine.model: some of its weights are frozen, but it is opened anew and trained whole.",
                "Use method='lora', or like_llama_index=True or a loss, which train engine.model itself.",
            )

    def _set_length(self) -> int | None:
        """``max_seq_length`` of ``engine.model`` where somebody has set it; looking at the model changes nothing."""
        length = getattr(self._model, "max_seq_length", None)
        return None if length == self._length else length

    def _planned(self, data: RetrievalDataset, options: TuneOptions, warmup_steps: int | None) -> TuneOptions:
        """With as many looks at dev as ``evaluation_steps`` asks for, and ``warmup_steps`` as a share."""
        training = TrainingData.of(data)
        pairs = sum(map(len, training.positives))
        settings = settle(options, len(training.queries), pairs, int(training.pool.sum()))
        steps = max(1.0, settings.epochs * len(training.queries) / settings.batch)
        if self.evaluation_steps and options.checks is None:
            options = dataclasses.replace(options, checks=max(1, round(steps / self.evaluation_steps)))
        return options if warmup_steps is None else dataclasses.replace(options, warmup=min(1.0, warmup_steps / steps))

    def _rising(self, options: TuneOptions, warmup_steps: int | None) -> TuneOptions:
        """For training with a loss or like LlamaIndex: its steps are of pairs."""
        if warmup_steps is None:
            return options
        batch, epochs = options.batch or LLAMA_BATCH, options.epochs or LLAMA_EPOCHS
        steps = round(-(-len(self._pairs()) // batch) * epochs)
        return dataclasses.replace(options, warmup=min(1.0, warmup_steps / max(1, steps)))

    def _finetune_plainly(
        self, data: RetrievalDataset, out: Path, options: TuneOptions, progress: Progress
    ) -> TuneResult:
        """With the given loss, or as LlamaIndex trains."""
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        check_output(out, ARTIFACT_FILE)
        started = time.perf_counter()
        base = self.model  # opening it may draw
        torch.manual_seed(options.seed)  # for dropout, and weights that the loss may have
        loss = self._loss() or MultipleNegativesRankingLoss(base)
        model = self.model
        loss.to(model.device)
        embedder = LocalEmbedder(model, EmbedOptions(precision="fp32"), self.model_id)
        fingerprint = embedder.fingerprint
        look = partial(_on_dev, data, embedder) if data.qrels.get("dev") else None
        before = look() if look else 0.0
        after = fit_plainly(
            model,
            self._pairs(),
            loss,
            batch=int(options.batch or LLAMA_BATCH),
            epochs=options.epochs or LLAMA_EPOCHS,
            rate=options.rate or LLAMA_RATE,
            weight_decay=options.weight_decay,
            warmup=options.warmup,
            seed=options.seed,
            prompted=not self.like_llama_index,
            measure=look,
            measure_every=self.evaluation_steps or 50,
            to_beat=None if self.like_llama_index else before,
            progress=progress,
        )
        notes: tuple[str, ...] = ()
        if look is None:
            notes = ("There was no dev split: the last state is kept, and nothing says that it is better.",)
        elif not self.like_llama_index and after == before:
            notes = ("Nothing beat the base model on dev, so the result is the base model.",)
        seconds = round(time.perf_counter() - started, 1)
        name = self.model_id
        result = TuneResult(out, "full", name, fingerprint, before, after or 0.0, {}, seconds, notes)
        save_artifact(model, result, options)
        return result

    def _loss(self) -> Any:
        """The given loss over the model that will be saved."""
        from torch.nn import Module

        loss = self.loss
        if loss is not None and not isinstance(loss, Module):
            loss = loss(self.model)
        own = getattr(loss, "model", None)
        if own is not None and hasattr(own, "encode_query"):
            self._model = own  # else training would change one model and save another
        return loss


def _on_dev(data: RetrievalDataset, embedder: LocalEmbedder) -> float:
    return round(whole_dev(data, embedder), 5)
