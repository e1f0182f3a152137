"""Whether a query says what it is about, or could be asked of any document."""

from __future__ import annotations

import re

from vectune.queries import language

_PRONOUNS = frozenset("it its this that these those he she they him her them his their one ones there here".split())
_GENERIC = frozenset(
    """about above according act action actions add address affect aim allow also amount answer answers approach
    article articles aspect aspects author authors base based become begin benefit benefits case cases cause
    change changes chapter characteristic common company conclude conclusion conclusions condition conditions
    conduct conducted consider contain contains content context create data date define definition describe
    described detail details determine difference differences discuss discussed do does document documents done
    effect effects example examples excerpt exist explain explained extract fact factor factors feature features
    figure find finding findings first following found function further general get give given goal happen
    happened happens help impact implication implications importance important include included includes
    information involve involved involves issue issues key kind kinds know known last latter level limitation
    limitations list long made main make makes many mean meaning means measure mention mentioned mentions method
    methods much name named names need needed new number numbers objective objectives occur option options order
    outcome outcomes page paper paragraph paragraphs part parts passage people perform performed person persons
    place point points possible potential present presented problem problems procedure process provide provided
    provides purpose purposes question reason reasons refer reference referred refers related relation report
    reported require required requirement requirements requires research responsible result results role said say
    says section sections sentence show shown shows significance significant situation situations some specific
    start state stated statement statements states step steps study studies subject subjects such suggest
    suggested suggests summary table take takes tell term terms text texts thing things time times title topic
    topics total type types use used uses using value values various way ways whole word words work works writer
    year years""".split()
)


def names_subject(text: str) -> bool:
    """True when something is left of the query after function words, pronouns and words that fit any document.

    A name, a number with letters or a rare word is enough; "When was the study conducted?" has none. For languages
    other than English only function words are known, so only the emptiest queries are found.
    """
    words = re.findall(r"[^\W_]+(?:[-'’][^\W_]+)*", text)
    function = language.function_words(text) | _PRONOUNS
    left = [word for word in words if word.lower() not in function and word.lower() not in _GENERIC]
    left = [word for word in left if not word.isdigit() and (len(word) > 1 or not word.isascii())]
    if any(word.lower() in _PRONOUNS for word in words[1:3]) and re.match(r"(?i)(what|how|why|when|who|where)\b", text):
        return len(left) > 1  # "How does it drain?": one verb is not a subject
    return bool(left)
