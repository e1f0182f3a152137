"""Residue of a prompt in a query: words that point at a text which the person searching does not have.

"According to the provided context" gives the writer away; "according to Oxfam" and "in the context of teaching" do not.
"""

from __future__ import annotations

import re

_TEXT = r"(?:text|passage|excerpt|document|context|paragraph|article|snippet|extract|chunk|source|material|content)s?"
_TEXT_OR_PART = rf"(?:{_TEXT}|section|information|statement|report|paper|study|chapter|page|list|table)"
_POINTER = r"(?:provided|given|above|following|presented|supplied|aforementioned)"
_TOLD = (
    r"(?:mentioned|described|stated|discussed|outlined|given|provided|listed|specified|presented|explained|cited|used"
    r"|referenced|referred\s+to|reported|indicated|detailed|defined|included|highlighted|addressed|structured|found|shown|contained)"
)
_SAYS = r"(?:say|mention|describe|state|suggest|discuss|imply|refer|provide|explain|indicate|highlight|list|define)s?"

_PATTERNS = (
    r"\bcontext(?:ual)?\s+information\b",
    rf"\b(?:the|this|that)\s+(?:\w+\s+)?{_POINTER}\s+(?:\w+\s+)?{_TEXT_OR_PART}\b(?!\s+of\b)",
    rf"\b{_POINTER}\s+(?:text|passage|excerpt|context|paragraph|snippet|information)\b(?!\s+(?:of|about|on|to)\b)",
    rf"\b(?:the|this|these)\s+{_TEXT_OR_PART}\s+(?:you\s+)?(?:provided|given|above|presented)\b(?!\s+by\b)",
    r"\b(?:in|from|by|per|using)\s+(?:the|this)\s+context\b(?!\s+of\b)",
    rf"\baccording\s+to\s+(?:the|this|these|that)\s+(?:\w+\s+)?(?:{_TEXT}|authors?|information|section)\b",
    rf"\b(?:based|relying|drawing)\s+(?:up)?on\s+(?:the|this|that)\s+(?:\w+\s+)?(?:{_TEXT}|information)\b(?!\s+of\b)",
    rf"\b{_TOLD}\s+(?:\w+\s+)?(?:in|by|within|throughout)\s+(?:the|this|these|that)\s+(?:\w+\s+)?{_TEXT}\b(?!\s+of\b)",
    r"\b(?:in|within|throughout|from)\s+(?:this|the|these|that)\s+(?:passage|excerpt|snippet|paragraph|chunk)s?\b",
    r"\b(?:in|within|from)\s+this\s+(?:text|document|article|section|source|context)\b",
    rf"\b(?:the|this)\s+(?:text|passage|excerpt|snippet|paragraph|context|author)\s+{_SAYS}\b",
    rf"\b(?:does|do|did)\s+(?:the|this|these)\s+(?:text|passage|excerpt|snippet|paragraph|authors?|context)\s+{_SAYS}\b",
    rf"\b(?:in\s+the\s+context|purpose)\s+of\s+(?:the|this|these|that)\s+(?:\w+\s+)?(?:{_TEXT}|information)\b",
    r"\b(?:section|article|clause|exhibit|schedule|paragraph)\s+[\d.()a-z]+\s+(?:of|in)\s+(?:the|this)\s+(?:document|text)\b",
    r"\b(?:how|what|why|when|where)\s+(?:does|do|did|is|are)\s+(?:the|this)\s+(?:document|text|passage|excerpt)\b",
    r"\bas\s+a\s+(?:teacher|professor)\b,?",
    r"\bprovide\s+(?:specific\s+)?(?:examples|details|evidence)\s+(?:\w+\s+)?from\s+(?:the|this)\b",
    # German, French, Spanish, Italian, Portuguese, Dutch
    r"\b(?:laut|gemäß|nach)\s+(?:dem|diesem|vorliegendem)\s+(?:\w+\s+)?(?:text|dokument|kontext|abschnitt|auszug|artikel)\b",
    r"\b(?:im|in\s+diesem)\s+(?:\w+en\s+)?(?:text|kontext|abschnitt|auszug)\s+(?:\w+\s+)?(?:genannt|erwähnt|beschrieben)",
    r"\b(?:im\s+(?:vorliegenden|gegebenen|bereitgestellten|obigen)|in\s+diesem)\s+(?:text|dokument|abschnitt|auszug)\b",
    r"\b(?:selon|d['’]après)\s+(?:le|ce|l['’]|cet)\s*(?:texte|document|contexte|passage|extrait|article)\b",
    r"\bdans\s+(?:ce|cet)\s+(?:texte|document|passage|extrait|article)\b|\bcontexte\s+fourni\b",
    r"\b(?:según|de\s+acuerdo\s+con)\s+(?:el|este)\s+(?:texto|documento|contexto|pasaje|fragmento|artículo)\b",
    r"\ben\s+este\s+(?:texto|documento|pasaje|fragmento|artículo)\b|\bcontexto\s+proporcionado\b",
    r"\b(?:secondo|in\s+base\s+a)\s+(?:il|questo)\s*(?:testo|documento|contesto|brano|passaggio)\b|\bin\s+questo\s+testo\b",
    r"\b(?:segundo|de\s+acordo\s+com)\s+(?:o|este)\s+(?:texto|documento|contexto|trecho|artigo)\b|\bneste\s+texto\b",
    r"\bvolgens\s+(?:de|het|deze|dit)\s+(?:tekst|document|context|passage|artikel)\b|\bin\s+deze\s+tekst\b",
)
_RESIDUE = re.compile("|".join(f"(?:{pattern})" for pattern in _PATTERNS), re.IGNORECASE)


def has_residue(text: str) -> bool:
    """True for a query that speaks of the text it was written from."""
    return _RESIDUE.search(text) is not None
