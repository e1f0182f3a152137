"""Queries from the chunks' own words: no model, no network, thousands of chunks a second.

Every query leaves something out of what it was cut from, so that a model tuned on it cannot succeed by matching a
string: key terms without their sentence, a sentence without its answer (after the cloze task of Lewis et al.,
"Unsupervised Question Answering by Cloze Translation", ACL 2019), a crop without some of its words (as in the inverse
cloze task of Lee et al., ACL 2019). Headings come as they are: people search for them.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import inf

from vectune.characters import wording
from vectune.errors import check_bounds
from vectune.lexical import Analyzer
from vectune.records import Chunk, Query, WrittenQuery, content_id
from vectune.runs import hash_of

_VERSION = 1  # raise it whenever the same options would give other queries
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|https?://\S+|<[^<>\n]{1,80}>")
_MARK = re.compile(r"^[\s#>*+\-|•·]+|[*_`|]+", re.MULTILINE)
_BREAK = re.compile(r"(?<=[.!?;])\s+|(?<=[。！？；])|\n+")
_EDGE = "\"'“”‘’«»()[]{}<>.,;:!?…。，、；：！？"
_ABLE = re.compile(r"\b(?:can|to|must|should|may|will) ((?:[a-z]{3,} )(?:[^\s.,;:()]+ ){1,7}[^\s.,;:()]+)")
_BE = re.compile(r"^((?:[^\s,;:()]+ ){0,5}[^\s,;:()]+) (is|are|was|were) (?:an? |the )?([^\s].{15,})$")
_TIME = re.compile(r"\s*\b(?:in|on|since|by|until|from) (?:[A-Z][a-z]+ )?(?:\d{1,2},? )?(?:1[5-9]|20)\d\d\b")
_COUNT = re.compile(
    r"(?:\$ ?)?\b\d[\d,.]*(?: (?:million|billion|thousand|percent))?(?: ?%)? ((?:[a-z]{3,} )??[a-z]{3,}s)\b"
)
_WHY = re.compile(r"^(.{12,}?),? (?:because|due to|as a result of|in order to|so that) ")
_OPENER = re.compile(
    r"^(?:(?:However|Also|Moreover|Furthermore|Therefore|Thus|In addition|For example|And|But|So|While)\b,? )+"
)
_UNCLEAR = re.compile(r"^(?:it|this|that|these|those|they|he|she|we|i|you|there|here)\b", re.IGNORECASE)


@dataclass(frozen=True)
class ExtractiveOptions:
    """What queries to write.

    Attributes:
        per_chunk: queries for each chunk; fewer where a chunk has not that much to say.
        keywords, question, sentence, title: how often each style is drawn, relative to the others; 0 never.
            Question forms are English; chunks in another language get another style instead.
        language: stemming and stop words, see ``lexical.Analyzer``.
        seed: another seed gives other queries; the same one always the same.
    """

    per_chunk: int = 3
    keywords: float = 1.0
    question: float = 1.0
    sentence: float = 1.0
    title: float = 0.5
    language: str | None = "en"
    seed: int = 0

    def __post_init__(self) -> None:
        weights = dict.fromkeys(("keywords", "question", "sentence", "title"), (0, inf))
        check_bounds("queries", self, {"per_chunk": (1, inf), **weights})


class ExtractiveWriter:
    """Writes queries from the chunks' own words. A ``QueryWriter``."""

    def __init__(self, options: ExtractiveOptions = ExtractiveOptions()) -> None:
        self.options = options
        self._analyzer = Analyzer(options.language)
        self._forms: dict[str, Callable[[_Source], str]] = {
            "keywords": self._keywords,
            "question": self._question,
            "sentence": self._sentence,
            "title": self._title,
        }

    @property
    def name(self) -> str:
        return "extractive"

    @property
    def fingerprint(self) -> str:
        return hash_of({"writer": self.name, "version": _VERSION, **asdict(self.options)})

    def write(self, chunks: Sequence[Chunk]) -> Iterator[WrittenQuery]:
        """Up to ``per_chunk`` queries for each chunk, in the chunks' order; no text twice for one chunk.

        What is rare is counted over all the chunks given, so give the whole corpus at once.
        """
        rarity = self._rarity(chunks)
        for chunk in chunks:
            source = _Source(chunk, self._analyzer, rarity, self.options.seed)
            seen = {""}
            for style in self._styles(source.rng):
                text = " ".join(self._forms[style](source).split())
                if wording(text) not in seen:
                    seen.add(wording(text))
                    yield WrittenQuery(Query(text, style, self.name), (chunk.id,))
                if len(seen) > self.options.per_chunk:
                    break

    def _styles(self, rng: random.Random) -> Iterator[str]:
        """Styles to try, at least as many as queries are wanted; every style once more for those that yield nothing."""
        weights = [max(float(getattr(self.options, style)), 0.0) for style in self._forms]
        if not any(weights):
            return
        yield from rng.choices(list(self._forms), weights, k=self.options.per_chunk)
        yield from [style for style, weight in zip(self._forms, weights, strict=True) if weight] * 2

    def _rarity(self, chunks: Sequence[Chunk]) -> dict[str, float]:
        """Stem → inverse document frequency; words in a single chunk count as half: often names of nothing."""
        found: Counter[str] = Counter()
        for chunk in chunks:
            found.update(set(self._analyzer.stems(chunk.content)))
        total = len(chunks)
        single = 0.5 if total > 50 else 1.0
        return {stem: math.log(1 + total / n) * (single if n == 1 else 1.0) for stem, n in found.items()}

    # The forms: each returns a text, or "" where the chunk does not lend itself to it

    def _keywords(self, source: _Source) -> str:
        """Two to five key terms in the order of the text."""
        terms = source.terms()
        count = source.rng.randint(2, 5)
        if len(terms) < 2:
            return ""
        chosen = _draw_weighted(terms, count, source.rng)
        return " ".join(sorted(chosen, key=list(terms).index))

    def _sentence(self, source: _Source) -> str:
        """Four to fourteen words of a sentence in a row, about one in five of them dropped."""
        sentence = source.pick_sentence()
        words = [word.strip(_EDGE) for word in sentence.split()]
        if len(words) < 4:
            return _characters(sentence, source.rng)
        length = min(source.rng.randint(5, 16), len(words))
        start = source.rng.randint(0, len(words) - length)
        crop = words[start : start + length]
        kept = [word for word in crop if word and source.rng.random() > 0.2]
        return " ".join(kept if len(kept) >= 3 else crop)

    def _title(self, source: _Source) -> str:
        """The innermost heading, alone or with the document's title or a key term."""
        chunk = source.chunk
        heading = chunk.headings[-1] if chunk.headings else chunk.title
        if not heading or len(heading) > 120:
            return ""
        extra = list(source.terms())[:4]
        if extra and source.rng.random() < 0.6:
            return f"{heading} {source.rng.choice(extra)}"
        return heading

    def _question(self, source: _Source) -> str:
        """A sentence turned into the question it answers; English only."""
        if not source.english:
            return ""
        for _ in range(4):
            sentence = source.pick_sentence().rstrip()
            question = self._asked(sentence, source.rng)
            if question and 3 <= len(question.split()) <= 24:
                return question
        topic = self._topic(source)
        return source.rng.choice(_TOPIC_FORMS).format(topic) if topic else ""

    def _asked(self, sentence: str, rng: random.Random) -> str:
        if sentence.endswith("?"):
            return sentence
        body = _OPENER.sub("", sentence.rstrip(_EDGE))
        forms: list[str] = []
        if (found := _ABLE.search(body)) and self._means(found[1].split()[0]):
            forms.append(rng.choice(("how to {}", "how do I {}", "{}")).format(found[1]))
        if _UNCLEAR.match(body):
            return rng.choice(forms) if forms else ""
        if (found := _TIME.search(body)) and found.start() > 12:
            forms.append(f"when {_lower(body[: found.start()])}{body[found.end() :]}")
        if found := _COUNT.search(body):
            forms.append(f"how many {found[1]} {_lower(body[: found.start()])}{body[found.end() :]}")
        if found := _WHY.match(body):
            forms.append(f"why {_lower(found[1])}")
        if (found := _BE.match(body)) and self._means(found[1].split()[-1]):
            forms.append(f"what {found[2]} {_lower(found[1])}")
            forms.append(f"what {found[2]} {_lower(found[3])}")
        return _shortened(rng.choice(forms), rng) if forms else ""

    def _means(self, word: str) -> bool:
        """False for a stop word or another word that only holds a sentence together."""
        return word.lower() not in _FUNCTION_WORDS and bool(self._analyzer.stem(word.lower()))

    def _topic(self, source: _Source) -> str:
        """Two to four words in a row without a stop word, the rarer the likelier."""
        words = [word.strip(_EDGE) for word in source.pick_sentence().split()]
        runs: dict[str, float] = {}
        run: list[str] = []
        for word in [*words, ""]:
            if word.isalnum() and self._means(word):
                run.append(word)
                continue
            if 2 <= len(run) <= 4:
                runs[" ".join(run)] = sum(source.rarity.get(self._analyzer.stem(word.lower()), 0.0) for word in run)
            run = []
        return _draw_weighted(runs, 1, source.rng)[0] if runs else ""


_TOPIC_FORMS = ("what is {}", "how does {} work", "what are the {}", "{} explained", "why {}", "how to use {}")


class _Source:
    """A chunk with what the forms need of it, worked out once."""

    def __init__(self, chunk: Chunk, analyzer: Analyzer, rarity: dict[str, float], seed: int) -> None:
        self.chunk, self.analyzer, self.rarity = chunk, analyzer, rarity
        self.rng = random.Random(content_id(str(seed), chunk.id))
        text = _MARK.sub(" ", _LINK.sub(r" \1 ", chunk.text))
        self.sentences = [line.strip() for line in _BREAK.split(text) if _worth_asking(line)] or [text.strip()]
        self.words = analyzer.words(text)
        stops = sum(word in analyzer.stopwords for word in self.words)
        self.english = analyzer.language in ("en", "english") and stops > 0.1 * len(self.words)
        self._terms: dict[str, float] | None = None

    def pick_sentence(self) -> str:
        return self.rng.choice(self.sentences)

    def terms(self) -> dict[str, float]:
        """Up to a dozen key words in the order of the text → weight (saturated frequency × rarity)."""
        if self._terms is None:
            counts: Counter[str] = Counter()
            surface: dict[str, str] = {}
            for word in self.words:
                stem = self.analyzer.stem(word)
                if stem and not word.isdigit():
                    counts[stem] += 1
                    surface.setdefault(stem, word)
            weights = {stem: n / (n + 1) * self.rarity.get(stem, 0.0) for stem, n in counts.items()}
            best = set(sorted(weights, key=lambda stem: -weights[stem])[:12])
            self._terms = {surface[stem]: weights[stem] for stem in surface if stem in best}
        return self._terms


def _worth_asking(line: str) -> bool:
    """A sentence with enough letters; not a table row, a list of numbers or a fragment."""
    letters = sum(map(str.isalpha, line))
    return letters >= 12 and letters > 0.6 * len(line.strip())


def _draw_weighted(weights: dict[str, float], count: int, rng: random.Random) -> list[str]:
    """``count`` different keys, heavier ones likelier (Efraimidis and Spirakis, 2006)."""
    keys = {key: rng.random() ** (1 / max(weight, 1e-6)) for key, weight in weights.items()}
    return sorted(keys, key=lambda key: -keys[key])[:count]


def _characters(sentence: str, rng: random.Random) -> str:
    """A crop by characters, for scripts that write no spaces."""
    if len(sentence) < 8:
        return ""
    length = min(rng.randint(6, 18), len(sentence))
    start = rng.randint(0, len(sentence) - length)
    return sentence[start : start + length].strip(_EDGE)


def _shortened(question: str, rng: random.Random) -> str:
    """People stop typing early: long questions lose their end."""
    words = question.split()
    return " ".join(words[: max(rng.randint(6, 18), 4)]).rstrip(_EDGE)


def _lower(text: str) -> str:
    """The first letter in lower case, unless the word looks like a name."""
    first = text.split(" ", 1)[0]
    return text[:1].lower() + text[1:] if first.lower() in _FUNCTION_WORDS else text


_FUNCTION_WORDS = frozenset(
    "the a an its our their his her my your which whom whose what who how in on at for if when while all any each both "
    "we you he she i me us them so than from about also more most other some much many very just only can could would "
    "should may might must have has had do does did been being were am".split()
)
