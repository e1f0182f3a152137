"""Which language a text is in: by script, and by the most frequent short words. No model, no data files.

Enough to tell the model which language to write in and to drop a query in the wrong one; where the evidence is thin the
answer is "unknown", never a guess.
"""

# ruff: noqa: E501 - the word lists read best one language a line
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

NAMES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "pt": "Portuguese",
    "nl": "Dutch", "sv": "Swedish", "da": "Danish", "fi": "Finnish", "pl": "Polish", "cs": "Czech", "tr": "Turkish",
    "ro": "Romanian", "hu": "Hungarian", "ru": "Russian", "uk": "Ukrainian", "el": "Greek", "ar": "Arabic",
    "he": "Hebrew", "hi": "Hindi", "th": "Thai", "zh": "Chinese", "ja": "Japanese", "ko": "Korean",
}  # fmt: skip

# Frequent words that the neighbours in this table do not share, or share with few.
_WORDS = {
    "en": "the of and to in is that for it with as was on be by are this from or which not have what how does when who why can an at do does did i my me you your we our their its if any all there has had were been should would will could about into than then no a",
    "de": "der die das und ist nicht ein eine mit von zu den dem des für auf im sich auch wie was werden wird bei oder nach wenn kann welche warum wann ich sie",
    "fr": "le la les des et est une dans pour que qui sur pas avec au du ce par sont comment quel quelle quels pourquoi être il elle nous vous ou aux",
    "es": "el la los las y es una para que en del por con no se como cuál qué cómo más su al son está puede cuando sobre un fue",
    "it": "il lo la gli le e è una per che di non con del della sono come quale quali cosa perché più nel alla un dei delle si può",
    "pt": "o os as e é uma para que em do da não com por como mais ao são qual quais está pode quando sobre um dos das no na foi",
    "nl": "de het een en is van niet met voor op dat te zijn wat hoe welke worden wordt ook door bij aan waarom wanneer kan er of",
    "sv": "och att det är en ett som för på inte med av till den hur vad kan om från har vilken vilka varför när jag eller",
    "da": "og at det er en et som for på ikke med af til den hvordan hvad kan om fra har hvilken hvilke hvorfor hvornår jeg eller",
    "fi": "ja on ei se että joka ovat oli kun mitä miten myös tai mutta voi kuinka miksi tämä hän ole kuin mikä",
    "pl": "i w na nie jest się z do że to jak dla przez od jakie który czy są oraz po ale dlaczego kiedy może ma",
    "cs": "a v na je se že to s z do jak pro jsou jaké který nebo ale co být od proč kdy může po jako není",
    "tr": "ve bir bu için ile da de ne nasıl olarak mı mi daha var çok gibi hangi neden kadar olan ya değil",
    "ro": "și în de la este nu cu pentru care pe un o din mai ce cum sunt sau ale prin fi unde când să se",
    "hu": "a az és hogy nem egy is van mi meg ez mint hogyan vagy miért volt csak mikor lehet ha de el milyen",
    "ru": "и в не на что с по как для это из от или при он она его к у за так какие можно если когда почему",
    "uk": "і в не на що з по як для це та від або при він вона його до у за які можна якщо коли чому є",
}  # fmt: skip
_LISTS = {code: frozenset(words.split()) for code, words in _WORDS.items()}
_SPOKEN_IN: dict[str, tuple[str, ...]] = {
    word: tuple(code for code, known in _LISTS.items() if word in known) for words in _LISTS.values() for word in words
}
_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
)
_CYRILLIC = re.compile("[\u0400-\u04ff]")


def main_language(texts: Sequence[str]) -> str:
    """The language of most of the texts whose language is known, by 200 of them; empty where none is."""
    found = Counter(detect(text) for text in texts[:: max(1, len(texts) // 200)])
    del found[""]
    return found.most_common(1)[0][0] if found else ""


def detect(text: str, least: int = 3) -> str:
    """ISO 639-1 code of the text's language; empty where the evidence is thin.

    Args:
        text: any text; the first 4,000 characters count.
        least: frequent words that must speak for the language, and it must lead by two and a quarter of them.
    """
    text = text[:4000]
    cyrillic = False
    if not text.isascii():
        letters = sum(character.isalpha() for character in text) or 1
        for code, script in _SCRIPTS:
            share = len(script.findall(text)) / letters
            if share > (0.1 if code == "ja" else 0.3):  # Japanese mixes kana into Chinese characters
                return code
        cyrillic = len(_CYRILLIC.findall(text)) / letters > 0.3
    scores = Counter(
        code
        for word in re.findall(r"[^\W\d_]+", text.lower())
        for code in _SPOKEN_IN.get(word, ())
        if (code in ("ru", "uk")) == cyrillic
    )
    (best, first), (_, second) = (*scores.most_common(2), ("", 0), ("", 0))[:2]
    return best if first >= least and first - second >= max(2, first / 4) else ""


def function_words(text: str) -> frozenset[str]:
    """The function words of the text's language; English where it is unknown."""
    return _LISTS.get(detect(text, least=2), _LISTS["en"])


def other_script(text: str, expected: str) -> bool:
    """True for three words and more in Latin letters where a language of another script is expected."""
    if expected not in {code for code, _ in _SCRIPTS} | {"ru", "uk"}:
        return False
    letters = [character for character in text if character.isalpha()]
    latin = sum(character.isascii() for character in letters)
    return latin > 0.9 * len(letters) and len(text.split()) >= 3
