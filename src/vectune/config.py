"""Every stage's options in one tree: a TOML file, the keyword arguments of ``vectune.run`` and run.json are the same.

A configuration file holds the top-level values and a table for each stage::

    model = "all-MiniLM-L6-v2"
    seed = 1

    [chunks]
    tokens = 200

    [tune]
    epochs = 2

    [models."openai:embed-v3"]
    base_url = "https://embeddings.example.com/v1"
    query_fields = { input_type = "query" }
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from os import PathLike, fspath
from pathlib import Path
from typing import Any, get_type_hints

from vectune.chunking import ChunkOptions
from vectune.documents import DocumentOptions
from vectune.duplicates import DuplicateOptions
from vectune.embedders.models import DEFAULT_MODEL
from vectune.embedders.options import EmbedOptions
from vectune.embedders.settings import check_models
from vectune.errors import InputError, UsageError, check_bounds, did_you_mean
from vectune.evaluation import EvaluateOptions
from vectune.metrics import measure_name
from vectune.queries.extractive import ExtractiveOptions
from vectune.queries.filters import FilterOptions
from vectune.queries.planning import LLMOptions
from vectune.runs import Json
from vectune.splits import SplitOptions
from vectune.training.options import TuneOptions
from vectune.training.teacher import TeacherOptions
from vectune.verdict import VerdictOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


SEEDED = ("queries", "llm_queries", "split", "tune", "evaluate", "verdict")  # parts that get what stands on top


@dataclass(frozen=True)
class Config:
    """All options of a run.

    Attributes:
        model: the model to tune; docs/reference/options.md has the names that there are.
        llm: the LLM that writes queries through an OpenAI-compatible address; None writes them without any model.
        seed: seeds everything that draws random numbers.
        ignore_labels: take a dataset folder's chunks as they are, and forget its queries and judgments.
        curve: after tuning, tune on parts of the train queries too, to see whether more data would help.
        general: a dataset on which the tuned model must not lose much; None makes one from untouched documents.
        allow_contamination: splits that share documents, near-duplicates or queries give a warning, not an error.
        log: a file of queries that people typed, one a line; they are labelled instead of others being written.
        most_chunks: queries are written for so many chunks, drawn at random where there are more; 0 means for all.
        models: how models behind an API are asked, by their names (``openai:NAME``), wherever they are named.
    """

    model: str = DEFAULT_MODEL
    llm: str | None = None
    seed: int = 0
    ignore_labels: bool = False
    allow_contamination: bool = False
    log: str | None = None
    most_chunks: int = 20_000
    curve: bool = False
    general: str | None = None
    documents: DocumentOptions = field(default_factory=DocumentOptions)
    chunks: ChunkOptions = field(default_factory=ChunkOptions)
    duplicates: DuplicateOptions = field(default_factory=DuplicateOptions)
    teacher: TeacherOptions = field(default_factory=TeacherOptions)
    queries: ExtractiveOptions = field(default_factory=ExtractiveOptions)
    llm_queries: LLMOptions = field(default_factory=LLMOptions)
    filters: FilterOptions = field(default_factory=FilterOptions)
    split: SplitOptions = field(default_factory=SplitOptions)
    tune: TuneOptions = field(default_factory=TuneOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    verdict: VerdictOptions = field(default_factory=VerdictOptions)
    models: Mapping[str, EmbedOptions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.model, PathLike):
            object.__setattr__(self, "model", fspath(self.model))
        if not isinstance(self.model, str):
            raise UsageError(
                f"model is a {type(self.model).__name__}; it is named by a string.",
                "A model in memory: save it to a folder, and name the folder.",
            )
        if self.llm is not None and self.log is not None:
            raise UsageError("a log's queries are labelled instead of others being written; give llm or log, not both.")
        check_bounds("", self, {"seed": (0, 2**32 - 1), "most_chunks": (0, inf)})
        check_models(self.models)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that queries are made with; they may lie among the documents and are none."""
        asked = self.llm_queries
        named = (self.log, asked.examples, asked.prompt, asked.prompt_two, asked.prices)
        return tuple(Path(name) for name in named if name is not None and Path(name).is_file())

    def seeded(self) -> Config:
        """The tree with the model and the seed written into every part that has one.

        What the verdict compares is measured, too.

        Raises:
            UsageError: the verdict's measure is none.
        """
        replace = dataclasses.replace
        measure = measure_name(self.verdict.measure)
        measures = (*self.evaluate.measures, *(() if measure in self.evaluate.all_measures() else (measure,)))
        return replace(
            self,
            queries=replace(self.queries, seed=self.seed),
            llm_queries=replace(self.llm_queries, seed=self.seed),
            split=replace(self.split, seed=self.seed),
            tune=replace(self.tune, seed=self.seed, model=self.model),
            evaluate=replace(self.evaluate, seed=self.seed, measures=measures),
            verdict=replace(self.verdict, seed=self.seed, measure=measure),
        )

    def limited(self, minutes: float) -> Config:
        """The tree with a limit on the time that tuning takes, where it has none."""
        if self.tune.max_minutes is not None:
            return self
        return dataclasses.replace(self, tune=dataclasses.replace(self.tune, max_minutes=minutes))

    def to_json(self) -> Json:
        """The tree as plain values, as run.json keeps it."""
        return dataclasses.asdict(self)


def config_from(values: Json, origin: str) -> Config:
    """Check values against the tree of options.

    Args:
        values: nested values, as from TOML.
        origin: the file they come from, for the error message.

    Raises:
        UsageError: an unknown name or a value of the wrong type; all of them are listed.
    """
    from pydantic import TypeAdapter, ValidationError

    problems = unknown_names(values, get_type_hints(Config))
    try:
        config = TypeAdapter(Config).validate_python(values)
    except ValidationError as error:
        problems += [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    except UsageError as error:  # a number that makes no sense
        error.args = (f"{origin}: {error}",)
        raise
    if problems:
        raise UsageError(f"{origin}: " + "; ".join(problems))
    return config


def unknown_names(values: Json, known: Mapping[str, Any], table: str = "") -> list[str]:
    """Names that no option has, each with the nearest one that exists: pydantic ignores them in dataclasses."""
    found = []
    for name, value in values.items():
        if name not in known:
            found.append(f"{table}{name}: there is no such option{did_you_mean(name, known)}")
        elif dataclasses.is_dataclass(known[name]) and isinstance(value, dict):
            found += unknown_names(value, get_type_hints(known[name]), f"{table}{name}.")
        elif name == "models" and isinstance(value, dict):
            options = get_type_hints(EmbedOptions)
            for model, own in value.items():
                found += unknown_names(own, options, f'models."{model}".') if isinstance(own, dict) else []
    return found


def read_config(path: Path | None) -> Config:
    """Read a TOML file; None gives the defaults.

    Raises:
        InputError: the file is missing or no TOML.
        UsageError: it holds an unknown name or a value of the wrong type.
    """
    if path is None:
        return Config()
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}).", path=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"is not valid TOML ({error}).", path=path) from None
    for table in SEEDED:
        given = values.get(table)
        for name in (name for name in ("seed", "model") if isinstance(given, dict) and name in given):
            hint = f"Set {name} at the top of the file, before the first [table]."
            raise UsageError(f"{path}: {table}.{name}: one {name} counts for all parts.", hint)
    return config_from(values, str(path))


def override(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with values replaced; those that are None or False are left as they were.

    Args:
        config: what to start from.
        values: by name, as in the file: ``seed``, ``tune.method``, ``llm_queries.budget``.

    Raises:
        UsageError: a value of the wrong type, or not among those allowed.
    """
    tree = config.to_json()
    for name, value in values.items():
        if value is None or value is False:
            continue
        table, _, key = name.rpartition(".")
        (tree[table] if table else tree)[key] = value
    return config_from(tree, "command line")
