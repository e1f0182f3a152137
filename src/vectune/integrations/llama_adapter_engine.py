"""EmbeddingAdapterFinetuneEngine: LlamaIndex's engine over vectune's adapters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from vectune.adapters import StoredAdapter, import_llama_index, read_json, save_adapter
from vectune.embedders.models import ARTIFACT_FILE
from vectune.errors import UsageError
from vectune.integrations.llama_adapters import CONFIG, LinearLayer, TwoLayerNN, check_adapter, torch_adapter
from vectune.integrations.llama_arguments import LLAMA_BATCH, LLAMA_RATE, refuse_unknown
from vectune.integrations.llama_data import QADataset, retrieval_dataset, with_dev_split
from vectune.integrations.llama_embedding import AdapterEmbeddingModel, as_embedder
from vectune.integrations.llama_fit import AdapterPlan, fit_adapter, save_step
from vectune.progress import SILENT, Progress
from vectune.runs import check_output, write_json, writing
from vectune.training.adapter import climb, embed_dataset, notes_on
from vectune.training.folders import marker
from vectune.training.problem import problem_of
from vectune.training.result import TuneResult

if TYPE_CHECKING:
    from vectune.dataset import RetrievalDataset

TRAIN_KWARGS = ("optimizer_class", "optimizer_params", "max_grad_norm", "steps_per_epoch", "warmup_steps",
                "show_progress_bar", "patience")  # fmt: skip
OF_THE_LADDER = {"show_progress_bar", "epochs", "batch_size"}  # named in a call, these alone ask for no other training


class EmbeddingAdapterFinetuneEngine:
    """Tune an adapter for queries over any LlamaIndex embedding; texts' vectors and their index stay as they are.

    Every text and question is embedded once, ever (LlamaIndex: again in each epoch), through whole lists.

    Without ``adapter_model`` vectune's ladder chooses, by questions it did not train on, among closed forms, linear and
    low-rank maps and a small network, and how far each goes; ``epochs`` and ``batch_size`` do not apply to it. With an
    ``adapter_model``, or ``bias`` or ``train_kwargs``, a torch adapter is trained. There vectune differs
    for the user's good: shuffled batches, every text of the pool as a negative, all relevant nodes, rate 1e-3 and not
    2e-5, and the state that dev likes best is kept. ``like_llama_index=True`` restores LlamaIndex's training: a
    LinearLayer, batches of 10 in the dataset's order with their own texts as negatives, rate 2e-5, one epoch, the first
    node of each question, the last state.

    The folder holds LlamaIndex's files (``config.json``, ``pytorch_model.bin``) and, but for classes of your own,
    vectune's (``adapter.json``, ``adapter.safetensors``).

    Args:
        dataset: ours, or llama-index-finetuning's object.
        embed_model: any BaseEmbedding.
        batch_size: questions in a step; None is 32.
        epochs: passes over the questions, at most; None is 20.
        adapter_model: LinearLayer, TwoLayerNN, or a torch module of your own with ``save`` and ``load``.
        dim: of the vectors; None asks the model.
        device: where a torch adapter is trained; None is the processor. The ladder needs no other.
        model_output_path: the folder to write.
        model_checkpoint_path: a folder for ``step_N`` of a torch adapter; None writes none.
        checkpoint_save_steps: steps between them.
        verbose: show progress.
        bias: a bias in the default linear adapter.
        val_dataset: chooses; None cuts it from ``dataset``, by section. Not read like LlamaIndex.
        use_all_docs: every relevant node of a question, not only the first; like LlamaIndex as a pair of its own.
        like_llama_index: see above.
        seed: of everything that is drawn.
        **train_kwargs: ``optimizer_class``, ``optimizer_params``, ``max_grad_norm``, ``steps_per_epoch``,
            ``warmup_steps``, ``show_progress_bar``, ``patience``; ``finetune`` takes them too.

    Attributes:
        model: the torch adapter; the ladder's is there after ``finetune``.
        loader: as LlamaIndex has it, made when asked for.
        result: what ``finetune`` came to; None before.

    Raises:
        UsageError: an unknown name among ``train_kwargs``.
    """

    def __init__(
        self,
        dataset: QADataset,
        embed_model: BaseEmbedding,
        batch_size: int | None = None,
        epochs: int | None = None,
        adapter_model: Any = None,
        dim: int | None = None,
        device: str | None = None,
        model_output_path: str = "model_output",
        model_checkpoint_path: str | None = None,
        checkpoint_save_steps: int = 100,
        verbose: bool = False,
        bias: bool = False,
        *,
        val_dataset: QADataset | None = None,
        use_all_docs: bool | None = None,
        like_llama_index: bool = False,
        seed: int = 0,
        **train_kwargs: Any,
    ) -> None:
        refuse_unknown(train_kwargs, TRAIN_KWARGS, "train_kwargs")
        self.dataset, self.val_dataset, self.embed_model = dataset, val_dataset, embed_model
        self.batch_size, self.epochs, self.bias, self.seed = batch_size, epochs, bias, seed
        self.device = device or "cpu"
        self.model_output_path, self.model_checkpoint_path = model_output_path, model_checkpoint_path
        self.checkpoint_save_steps, self.verbose = checkpoint_save_steps, verbose
        self.use_all_docs = not like_llama_index if use_all_docs is None else use_all_docs
        self.like_llama_index = like_llama_index
        self.model = adapter_model
        self.result: TuneResult | None = None
        self._dim, self._train_kwargs = dim, train_kwargs
        self._own = None if adapter_model is None else type(adapter_model)

    @classmethod
    def from_model_path(
        cls, dataset: QADataset, embed_model: BaseEmbedding, model_path: str, model_cls: Any = None, **kwargs: Any
    ) -> EmbeddingAdapterFinetuneEngine:
        """Train on from a saved adapter.

        Args:
            dataset: as for the constructor.
            embed_model: as for the constructor.
            model_path: what an engine wrote, ours or LlamaIndex's, or a checkpoint.
            model_cls: its class; None tells LinearLayer and TwoLayerNN apart by the file.
            **kwargs: of the constructor.

        Raises:
            ModelError: the folder holds no such adapter.
        """
        if model_cls is None:
            config = read_json(Path(model_path) / CONFIG)
            model_cls = TwoLayerNN if "hidden_features" in config else LinearLayer
        return cls(dataset, embed_model, adapter_model=model_cls.load(str(model_path)), **kwargs)

    @cached_property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return self._dim if self._dim is not None else self._embedder.dim

    @property
    def loader(self) -> Any:
        """(question, first node's text) in LlamaIndex's batches, embedded when a batch is taken: torch's DataLoader."""
        from torch.utils.data import DataLoader

        data = self.dataset
        pairs: Any = [(text, data.corpus[data.relevant_docs[key][0]]) for key, text in data.queries.items()]
        batch = self.batch_size or LLAMA_BATCH
        return DataLoader(pairs, batch_size=batch, collate_fn=self.smart_batching_collate)

    def smart_batching_collate(self, batch: Sequence[tuple[str, str]]) -> tuple[Any, Any]:
        """Tensors of shape (n, dim) of a batch's questions and texts; ``finetune`` embeds each once and not here."""
        import torch

        queries = self._embedder.embed_queries([query for query, _ in batch])
        texts = self._embedder.embed_documents([text for _, text in batch])
        return torch.from_numpy(queries), torch.from_numpy(texts)

    @cached_property
    def _embedder(self) -> Any:
        return as_embedder(self.embed_model)

    def finetune(self, **train_kwargs: Any) -> None:
        """Train, and write the folder.

        Args:
            **train_kwargs: as in the constructor, for this call.

        Raises:
            UsageError: an unknown name, or an adapter that cannot be saved or takes no vectors of this length.
            DatasetError: the dataset is broken.
            OutputError: the folder holds something else.
            TrainingError: the loss is no number any more.
        """
        kwargs = {**self._train_kwargs, **train_kwargs}
        refuse_unknown(kwargs, (*TRAIN_KWARGS, "epochs", "batch_size"), "finetune")
        self._check_numbers(kwargs)
        progress = Progress() if kwargs.get("show_progress_bar", self.verbose) else SILENT
        check_output(Path(self.model_output_path), ARTIFACT_FILE)
        val = None if self.like_llama_index else self.val_dataset  # nothing is chosen there
        data = retrieval_dataset(self.dataset, val, self.use_all_docs)
        if not self.like_llama_index:
            data = with_dev_split(data, self.seed, progress) or data
        if self._own is None and (self.like_llama_index or self.bias or kwargs.keys() - OF_THE_LADDER):
            self.model = LinearLayer(self.dim, self.dim, bias=self.bias)
            self._own = LinearLayer
        elif self._own is None and self.model_checkpoint_path:
            progress.warn("model_checkpoint_path: the ladder has no steps to save; give an adapter_model for that.")
        self.result = self._train(data, kwargs, progress) if self._own else self._climb(data, progress)

    def get_finetuned_model(self, **model_kwargs: Any) -> BaseEmbedding:
        """The embedding with the adapter on its queries.

        Args:
            **model_kwargs: of ``AdapterEmbeddingModel``; the adapter's class is known.

        Raises:
            ModelError: nothing is tuned yet.
        """
        return AdapterEmbeddingModel(
            self.embed_model, self.model_output_path, **{"adapter_cls": self._own, **model_kwargs}
        )

    def _climb(self, data: RetrievalDataset, progress: Progress) -> TuneResult:
        started = time.perf_counter()
        queries, documents = embed_dataset(data, self._embedder)
        climbed = climb(data, queries, documents, self.seed, progress=progress)
        self.model = torch_adapter(climbed.adapter)
        chosen = {"settings": [setting.describe() for setting in climbed.settings]}
        scores = climbed.dev_before, climbed.dev_after
        result = self._result(scores, chosen, started, notes_on(data, queries, climbed)[:2])
        self._save(result, StoredAdapter(climbed.adapter, None, self._embedder.name, self._embedder.fingerprint))
        return result

    def _train(self, data: RetrievalDataset, kwargs: dict[str, Any], progress: Progress) -> TuneResult:
        started = time.perf_counter()
        queries, documents = embed_dataset(data, self._embedder)
        check_adapter(self.model, queries.shape[1], self.device)
        folds = 2 if data.qrels.get("dev") and not self.like_llama_index else 0
        problem = problem_of(data, queries, documents, folds, self.seed)
        plan = self._plan(kwargs)
        saved = save_step(self.model, self.model_checkpoint_path, self.checkpoint_save_steps)
        scores = fit_adapter(self.model, problem, plan, self.device, saved, progress)
        self.model.to("cpu")
        notes = [] if folds else ["There was no dev split: the last state is kept, and nothing says that it is better."]
        if folds and scores[1] < scores[0]:
            notes.append(f"On dev the adapter ({scores[1]:.3f}) is behind the plain embedding ({scores[0]:.3f}).")
            progress.warn(notes[-1])
        told = getattr(self.model, "get_config_dict", dict)  # a module of one's own needs none
        result = self._result(scores if folds else (0.0, 0.0), {"adapter": told()}, started, notes)
        self._save(result, None)
        return result

    def _check_numbers(self, kwargs: dict[str, Any]) -> None:
        own = {name: getattr(self, name) for name in ("epochs", "batch_size", "checkpoint_save_steps")}
        for name, value in {**own, **{name: kwargs[name] for name in own if name in kwargs}}.items():
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}: expected at least 1.")

    def _plan(self, kwargs: dict[str, Any]) -> AdapterPlan:
        plain = self.like_llama_index
        batch = kwargs.get("batch_size") or self.batch_size or (LLAMA_BATCH if plain else 32)
        epochs = kwargs.get("epochs") or self.epochs or (1 if plain else 20)
        return AdapterPlan(
            batch=batch,
            epochs=epochs,
            rate=LLAMA_RATE if plain else 1e-3,
            shuffle=not plain,
            pool=not plain,
            patience=kwargs.get("patience", 0 if plain else 4),
            steps_per_epoch=kwargs.get("steps_per_epoch"),
            max_grad_norm=kwargs.get("max_grad_norm", 1.0),
            warmup_steps=kwargs.get("warmup_steps"),
            optimizer=kwargs.get("optimizer_class"),
            optimizer_params=dict(kwargs.get("optimizer_params", {})),
            seed=self.seed,
        )

    def _result(
        self, scores: tuple[float, float], chosen: dict[str, Any], started: float, notes: Sequence[str]
    ) -> TuneResult:
        before, after = (round(score, 5) for score in scores)
        name, fingerprint = self._embedder.name, self._embedder.fingerprint
        seconds = round(time.perf_counter() - started, 2)
        out = Path(self.model_output_path)
        return TuneResult(out, "adapter", name, fingerprint, before, after, chosen, seconds, tuple(notes))

    def _save(self, result: TuneResult, stored: StoredAdapter | None) -> None:
        """LlamaIndex's files, vectune's where the adapter can be said with them, and the marker last."""
        with writing(result.path) as beside:
            beside.mkdir(parents=True)
            self.model.save(str(beside))
            if stored is None and self._own in (LinearLayer, TwoLayerNN):
                adapter = import_llama_index(beside)
                stored = StoredAdapter(adapter, None, result.model, result.base_fingerprint)
            if stored is not None:
                save_adapter(beside, stored)
            write_json(beside / ARTIFACT_FILE, marker("adapter", result))
