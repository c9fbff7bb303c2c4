"""An exact tokenizer, where its vocabulary lies on this machine already.

OpenAI's tokenizer (tiktoken, which langchain-openai brings) fetches a model's vocabulary from the network when it is first used, and
keeps it in a folder. Offline that fails after seconds; in a container that starts anew it is fetched anew. So tiktoken is asked only
where the folder has the file, with the very contents that tiktoken expects: with others it would fetch it again. Otherwise counts are
estimated (`decisions/tokens.py`). Whoever wants exact counts puts the file there: docs/models.md.

What must stay true: no socket is opened, whatever lies in the folder.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["exact_counter"]

# What tiktoken_ext.openai_public names (tiktoken 0.14, read November 2026): where a vocabulary is from, and its SHA-256.
_SOURCE = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_CONTENTS = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
_PROVIDERS = frozenset({"openai", "azure"})


def exact_counter(model: str, provider: str | None) -> Callable[[str], int] | None:
    """Return what counts the tokens of a text exactly as `model` does; None where that cannot be had without the network."""
    if provider not in _PROVIDERS or not any(map(_is_here, _CONTENTS)):
        return None
    try:
        import tiktoken

        name = tiktoken.encoding_name_for_model(model)
    except (ImportError, KeyError):  # not installed; another's model behind OpenAI's protocol
        return None
    if not _is_here(name):
        return None
    encoding = tiktoken.get_encoding(name)
    return lambda text: len(encoding.encode_ordinary(text))


def _is_here(name: str) -> bool:
    folder = _folder()
    return folder is not None and name in _CONTENTS and _has_contents(folder / _file_of(name), _CONTENTS[name])


def _folder() -> Path | None:
    """Return where tiktoken keeps its files; None where it is told to keep none."""
    given = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if given == "":
        return None
    return Path(given) if given is not None else Path(tempfile.gettempdir()) / "data-gym-cache"


def _file_of(name: str) -> str:
    return hashlib.sha1(_SOURCE.format(name).encode(), usedforsecurity=False).hexdigest()


def _has_contents(file: Path, expected: str) -> bool:
    try:
        status = file.stat()
    except OSError:
        return False
    return _digest(file, status.st_mtime_ns, status.st_size) == expected


@functools.lru_cache(maxsize=8)
def _digest(file: Path, changed_ns: int, size: int) -> str:
    """Return the SHA-256 of `file`, read again when it has changed."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""
