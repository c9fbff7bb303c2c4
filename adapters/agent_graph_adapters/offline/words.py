"""Words: where they stand in a text, their stems, and those that mean little."""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass

__all__ = ["STOPWORDS", "Word", "same_word", "stem", "stems", "words"]

_STOPWORDS_TEXT = """
    a about after again all also am an and any are as at be been before but by can could did do does doing don't
    else every few for from get give had has have he hello help her here hers hey hi him his how i i'd i'm if in
    into is it it's its just kindly know let let's like me more much my need no not now of off ok on once one or our
    out over please plus right same say she should show so some such tell than thank thanks that that's the their
    them then there these they this those to today tonight too try under until up us use using very versus vs want
    was we well were what what's when where which while who whom whose why will with would yes yet you your
"""
STOPWORDS = frozenset(_STOPWORDS_TEXT.split())
_WORD = re.compile(r"[^\W_]++(?:['’.\-][^\W_]++)*+")


@dataclass(frozen=True, slots=True)
class Word:
    """A word as written, and where."""

    text: str
    start: int
    end: int

    @property
    def plain(self) -> str:
        return self.text.casefold().replace("’", "'")


@functools.lru_cache(maxsize=1024)
def words(text: str) -> tuple[Word, ...]:
    """Return the words of `text`, in order."""
    return tuple(Word(found.group(), *found.span()) for found in _WORD.finditer(text))


@functools.lru_cache(maxsize=1024)
def stems(text: str) -> tuple[str, ...]:
    """Return the stems of the words of `text`, identifiers such as `getWeather` or `get_weather` taken apart."""
    spaced = re.sub(r"(?<=[a-z\d])(?=[A-Z])", " ", text.replace("_", " ").replace("-", " "))
    return tuple(stem(found.group()) for found in _WORD.finditer(spaced))


@functools.lru_cache(maxsize=4096)
def stem(word: str) -> str:
    """Return a word without accents, case, and the commonest English endings."""
    folded = unicodedata.normalize("NFKD", word.casefold())
    plain = "".join(char for char in folded if not unicodedata.combining(char)).replace("’", "'").removesuffix("'s")
    for ending, rest in (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("s", "")):
        if plain.endswith(ending) and len(plain) - len(ending) >= 3 and not plain.endswith("ss"):
            return plain.removesuffix(ending) + rest
    return plain


def same_word(one: str, other: str) -> bool:
    """Whether two stems are the same word, "calculate" and "calculator" included."""
    if one == other:
        return True
    common = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        common += 1
    return common >= 5 and max(len(one), len(other)) - common <= 4
