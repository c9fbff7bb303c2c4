"""Reading a question by rules: the requests in it, and the typed values in each.

A question is cut into requests at the ends of sentences, at commas and at "and", except inside quotations, numbers,
dates, expressions, addresses and JSON. Values are found by shape, not by meaning: "17 * 23" is an expression, "Rio de
Janeiro" a name because of its capitals, "new york" in "weather in new york" a phrase because of the preposition. Only
the first `READ_CHARS` characters are read, and no pattern goes back over what it took (possessive quantifiers), so that
a huge question costs little.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent_graph_adapters.offline.cities import countries, folded
from agent_graph_adapters.offline.words import STOPWORDS, Word, stem, words

__all__ = ["READ_CHARS", "Kind", "Request", "Value", "Vocabulary", "requests"]

READ_CHARS = 8_000
"""Of a question; the rest is not looked at."""

Kind = Literal["object", "quoted", "url", "email", "date", "day", "expression", "number", "name", "phrase", "leading", "bare"]
"""`leading` is a name that opens its request, where any word has a capital; `bare` a request of a few plain words."""

# Words that open a request with a capital and are no name.
_COMMANDS_TEXT = """
    add ask book calculate check compare compute convert create delete describe email explain fetch find forecast
    list look open order pay plot post print read remind report schedule search send set summarise summarize
    translate update write
"""
_COMMANDS = frozenset(_COMMANDS_TEXT.split())
_PREPOSITIONS = frozenset({"about", "around", "at", "for", "from", "in", "near", "of", "on", "to", "with", "within"})
_PARTICLES_TEXT = "al am da das de del der di do dos du el la las le les los of upon van von"
_PARTICLES = frozenset(_PARTICLES_TEXT.split())
_MONTHS_TEXT = """
    january jan|february feb|march mar|april apr|may|june jun|july jul|august aug|september sep sept|october oct
    |november nov|december dec
"""
_MONTHS = {name: number for number, names in enumerate(_MONTHS_TEXT.split("|"), start=1) for name in names.split()}

# At most 40 digits: what is longer is no number that anybody asks about.
_NUM = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,12}+(?![0-9])(?:\.[0-9]{1,40}+)?|[0-9]{1,40}+(?:\.[0-9]{1,40}+)?|\.[0-9]{1,40}+)"
_OP = r"(?:\*\*|//|[-+*/%])"
_NUMBER = re.compile(rf"(?<![\w.])-?{_NUM}(?![\w])")
_EXPRESSION = re.compile(rf"(?<![\w.(])[-+]?\(*+ ?[-+]?{_NUM}(?:[ )]*+{_OP} ?[-+]?\(*+ ?[-+]?{_NUM})++\)*+(?![\w])")
_DATE = re.compile(
    r"\b(?:(?P<iso>\d{4}-\d{2}-\d{2})"
    r"|(?P<day>\d{1,2})(?:st|nd|rd|th)? (?:of )?(?P<month>[A-Za-z]{3,9})\.? (?P<year>\d{4})"
    r"|(?P<month2>[A-Za-z]{3,9})\.? (?P<day2>\d{1,2})(?:st|nd|rd|th)?,? (?P<year2>\d{4}))\b"
)
_RELATIVE_DATE = re.compile(r"\b(?:today|tomorrow|yesterday|tonight)\b", re.IGNORECASE)
_QUOTED = re.compile(r"\"([^\"\n]{1,2000}+)\"|“([^”\n]{1,2000}+)”|«([^»\n]{1,2000}+)»|`([^`\n]{1,2000}+)`|(?<!\w)'([^'\n]{1,2000}+)'(?!\w)")
_URL = re.compile(r"https?://[^\s\"'<>]{1,2000}+", re.IGNORECASE)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}+@[\w-]{1,63}+(?:\.[\w-]{1,63}+)++")
_NUMBER_LIST = re.compile(rf"(?<![\w.]){_NUM}(?:, {_NUM})*+,? (?:and|or|to) {_NUM}")
_QUALIFIER = re.compile(r"(?<=\w), (\w{2,20}+(?: \w{2,20}+){0,2})")
_CUT = re.compile(
    r"[?!;\n。？！；]++|(?<!\bSt)(?<!\bMr)(?<!\bMrs)(?<!\bDr)\.(?=\s|$)|,\s*(?:and then|and also|and|then|also)?\s"
    r"|、|，|\s(?:and then|and also|as well as|and|then|also|&)\s",
    re.IGNORECASE,
)

# Spoken arithmetic, put into symbols before anything else is read.
_SPOKEN = tuple(
    (re.compile(pattern, re.IGNORECASE), symbols)
    for pattern, symbols in (
        (r"[×·∙]", "*"),
        (r"÷", "/"),
        (r"[−–](?=\s?\d)", "-"),
        (r"(?<=\d)\s?\^\s?(?=[\d(])", " ** "),
        (r"(?<=\d)\s?x\s?(?=\d)", " * "),
        (rf"(?<![\w.])({_NUM})\s?(?:%|percent) of ({_NUM})", r"\1 / 100 * \2"),
        (rf"\bsquare root of ({_NUM})", r"\1 ** 0.5"),
        (rf"(?<![\w.])({_NUM}) squared\b", r"\1 ** 2"),
        (rf"(?<![\w.])({_NUM}) cubed\b", r"\1 ** 3"),
        (r"(?<=[\d)]) (?:times|multiplied by) (?=[\d(-])", " * "),
        (r"(?<=[\d)]) (?:divided by|over) (?=[\d(-])", " / "),
        (r"(?<=[\d)]) plus (?=[\d(-])", " + "),
        (r"(?<=[\d)]) minus (?=[\d(-])", " - "),
        (r"(?<=[\d)]) (?:mod|modulo) (?=[\d(-])", " % "),
        (r"(?<=[\d)]) (?:to the power of|raised to) (?=[\d(-])", " ** "),
    )
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Stems that belong to the tools, so that a request does not give them as values."""

    names: frozenset[str] = frozenset()
    """Of tools and parameters: never part of a name or a phrase."""
    prose: frozenset[str] = frozenset()
    """Of descriptions: never part of a phrase, since a phrase has no capital to tell it by."""


_NONE = Vocabulary()


@dataclass(frozen=True, slots=True)
class Value:
    """A value found in a request, and where."""

    kind: Kind
    value: Any
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Request:
    """One thing asked for: a piece of the question."""

    text: str
    start: int
    """Where it begins in the text that `requests` was cut from."""

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def words(self) -> tuple[Word, ...]:
        return words(self.text)

    def values(self, *kinds: Kind, vocabulary: Vocabulary = _NONE) -> tuple[Value, ...]:
        """Return the values of these kinds in order of `kinds`, then of place."""
        found = _typed(self.text)
        if not {"name", "phrase", "leading", "bare"}.isdisjoint(kinds):
            found += _untyped(self, vocabulary)
        return tuple(value for kind in kinds for value in found if value.kind == kind)


def requests(question: str) -> tuple[str, tuple[Request, ...]]:
    """Return the text that was read (spoken arithmetic in symbols, blanks evened out), and the requests in it."""
    text = _symbols("\n".join(" ".join(line.split()) for line in question[:READ_CHARS].splitlines()).strip())
    kept = _protected(text)
    pieces: list[Request] = []
    start = 0
    for cut in _CUT.finditer(text):
        if not any(kept[cut.start() : cut.end()]):
            pieces.append(_trimmed(text, start, cut.start()))
            start = cut.end()
    pieces.append(_trimmed(text, start, len(text)))
    return text, tuple(piece for piece in pieces if piece.text)


# -- parts -------------------------------------------------------------------------------------------------------------


def _symbols(text: str) -> str:
    """Put spoken arithmetic into symbols, except in quotations."""
    pieces: list[str] = []
    start = 0
    for quoted in _QUOTED.finditer(text):
        pieces += [_spoken(text[start : quoted.start()]), quoted.group()]
        start = quoted.end()
    return "".join([*pieces, _spoken(text[start:])])


def _spoken(text: str) -> str:
    for pattern, symbols in _SPOKEN:
        text = pattern.sub(symbols, text)
    return text


def _protected(text: str) -> bytearray:
    """Return a mask of the places at which `text` must not be cut."""
    mask = bytearray(len(text))
    spans = [(value.start, value.end) for value in _typed(text)]
    spans += [found.span() for found in _NUMBER_LIST.finditer(text)]
    spans += [found.span() for found in _QUALIFIER.finditer(text) if folded(found.group(1)) in countries()]
    for start, end in spans:
        mask[start:end] = b"\x01" * (end - start)
    return mask


def _trimmed(text: str, start: int, end: int) -> Request:
    piece = text[start:end]
    return Request(piece.strip(), start + len(piece) - len(piece.lstrip()))


@functools.lru_cache(maxsize=256)
def _typed(text: str) -> tuple[Value, ...]:
    """Return every value whose kind its shape tells. The first kind that claims a place has it, numbers apart."""
    found: list[Value] = []
    rest = text
    for reader in (_objects, _quotations, _links, _dates, _expressions):
        new = list(reader(rest))
        found += new
        if reader is not _expressions:
            rest = _blanked(rest, new)
    found += [Value("number", _number(match.group()), *match.span()) for match in _NUMBER.finditer(rest)]
    return tuple(sorted(found, key=lambda value: value.start))


def _blanked(text: str, values: Collection[Value]) -> str:
    """Return `text` with these values' places filled by a mark, so that nothing is found across them."""
    pieces: list[str] = []
    start = 0
    for value in sorted(values, key=lambda value: value.start):
        pieces += [text[start : value.start], "\x00" * (value.end - value.start)]
        start = value.end
    return "".join([*pieces, text[start:]])


def _quotations(text: str) -> Iterator[Value]:
    for found in _QUOTED.finditer(text):
        yield Value("quoted", next(group for group in found.groups() if group is not None), *found.span())


def _objects(text: str) -> Iterator[Value]:
    at = text.find("{")
    for _ in range(8):
        if at < 0:
            return
        try:
            value, end = json.JSONDecoder().raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield Value("object", value, at, end)
        at = text.find("{", end)


def _links(text: str) -> Iterator[Value]:
    for found in _URL.finditer(text):
        url = found.group().rstrip(".,;:!?)")
        yield Value("url", url, found.start(), found.start() + len(url))
    for found in _EMAIL.finditer(text):
        yield Value("email", found.group(), *found.span())


def _dates(text: str) -> Iterator[Value]:
    for found in _DATE.finditer(text):
        part = found.groupdict()
        month = _MONTHS.get((part["month"] or part["month2"] or "").lower())
        if part["iso"]:
            yield Value("date", part["iso"], *found.span())
        elif month is not None:
            year, day = part["year"] or part["year2"], int(part["day"] or part["day2"])
            yield Value("date", f"{year}-{month:02}-{day:02}", *found.span())
    for found in _RELATIVE_DATE.finditer(text):
        yield Value("day", found.group().lower(), *found.span())


def _expressions(text: str) -> Iterator[Value]:
    for found in _EXPRESSION.finditer(text):
        start, end = found.span()
        while (surplus := text.count("(", start, end) - text.count(")", start, end)) and start < end:
            if surplus > 0:
                start = text.index("(", start, end) + 1
            else:
                end = text.rindex(")", start, end)
        if expression := text[start:end].strip().replace(",", ""):
            yield Value("expression", expression, start, end)


def _number(text: str) -> int | float:
    plain = text.replace(",", "")
    return float(plain) if "." in plain else int(plain)


@functools.lru_cache(maxsize=256)
def _untyped(request: Request, vocabulary: Vocabulary) -> tuple[Value, ...]:
    taken = bytearray(len(request.text))
    for value in _typed(request.text):
        taken[value.start : value.end] = b"\x01" * (value.end - value.start)
    words = [word for word in request.words if not any(taken[word.start : word.end])]
    found = [*_names(request, words, vocabulary), *_phrases(request, words, vocabulary)]
    return tuple(sorted(found, key=lambda value: value.start))


def _names(request: Request, words: Sequence[Word], vocabulary: Vocabulary) -> Iterator[Value]:
    """Runs of capitalised words, or of words in a script without case; particles ("de", "of") may stand inside."""
    at = 0
    while at < len(words):
        end = at
        while end < len(words) and _capital(words[end], vocabulary) and _adjacent(request.text, words, at, end):
            end += 1
            if end + 1 < len(words) and words[end].text in _PARTICLES and _capital(words[end + 1], vocabulary):
                end += 1
        if end > at:
            yield _value(request, "name" if words[at].start else "leading", words[at:end])
        at = max(end, at + 1)


def _phrases(request: Request, words: Sequence[Word], vocabulary: Vocabulary) -> Iterator[Value]:
    """Up to four plain words after a preposition; and the request itself, less its opening, if it is no longer."""
    for at, word in enumerate(words):
        if word.plain in _PREPOSITIONS and (run := _run(words[at + 1 :], {"the", "a", "an"}, vocabulary)):
            yield _value(request, "phrase", run)
    run = _run(words, STOPWORDS, vocabulary)
    if run and run[-1] is words[-1] and all(value.kind == "day" for value in _typed(request.text)):
        yield _value(request, "bare", run)


def _run(words: Sequence[Word], opening: Collection[str], vocabulary: Vocabulary) -> Sequence[Word]:
    """Return the plain words (at most four) that follow any `opening` words."""
    start = next((at for at, word in enumerate(words) if word.plain not in opening), len(words))
    end = start
    while end < len(words) and end < start + 4 and _plain(words[end], vocabulary):
        end += 1
    return words[start:end]


def _plain(word: Word, vocabulary: Vocabulary) -> bool:
    plain = word.plain
    known = vocabulary.names | vocabulary.prose
    return not (plain in STOPWORDS or stem(plain) in known or plain[0].isdigit())


def _capital(word: Word, vocabulary: Vocabulary) -> bool:
    first = word.text[0]
    named = first.isupper() or (first.isalpha() and not first.islower())
    command = word.start == 0 and word.plain in _COMMANDS
    return named and not command and word.plain not in STOPWORDS and stem(word.text) not in vocabulary.names


def _adjacent(text: str, words: Sequence[Word], at: int, end: int) -> bool:
    if end == at:
        return True
    gap = text[words[end - 1].end : words[end].start]
    return gap in {" ", ". "} or (gap == ", " and folded(words[end].text) in countries())


def _value(request: Request, kind: Kind, words: Sequence[Word]) -> Value:
    start, end = words[0].start, words[-1].end
    return Value(kind, request.text[start:end], start, end)
