"""A serializer that takes secrets out of checkpoints, on the bytes that are about to be written.

Every object in a checkpoint (messages, tasks, snapshots, whatever a state holds) ends as MessagePack, with objects as nested
"ext" values of the form (module, class, fields). So one walk over the packed form reaches every text, whatever its type.
"""

from __future__ import annotations

from typing import Any

import ormsgpack
from langgraph.checkpoint.serde.jsonplus import EXT_DELTA_SNAPSHOT, EXT_NUMPY_ARRAY, JsonPlusSerializer

from agent_graph.storage.port import Redactor

__all__ = ["RedactingSerializer"]

_OPTIONS = ormsgpack.OPT_NON_STR_KEYS | ormsgpack.OPT_REPLACE_SURROGATES
_FIELDS = 2
"""Position of an object's fields in its ext value; before it stand module and class, which must stay as they are."""


class RedactingSerializer(JsonPlusSerializer):
    """The strict serializer, with `redact` called on every text it writes."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__(pickle_fallback=False, allowed_msgpack_modules=[])
        self._redact = redact

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Return type and bytes of `obj` without secrets."""
        kind, blob = super().dumps_typed(obj)
        if kind == "msgpack":
            return kind, self._repacked(blob)
        return kind, self._clean_bytes(bytes(blob))

    def _repacked(self, blob: bytes) -> bytes:
        value = ormsgpack.unpackb(blob, ext_hook=self._ext, option=ormsgpack.OPT_NON_STR_KEYS)
        return ormsgpack.packb(self._clean(value), option=_OPTIONS)

    def _ext(self, code: int, blob: bytes) -> Any:
        if code == EXT_NUMPY_ARRAY:
            return ormsgpack.Ext(code, blob)
        value = ormsgpack.unpackb(blob, ext_hook=self._ext, option=ormsgpack.OPT_NON_STR_KEYS)
        if code == EXT_DELTA_SNAPSHOT:
            value = self._clean(value)
        else:
            value = [self._clean(part) if i == _FIELDS else part for i, part in enumerate(value)]
        return ormsgpack.Ext(code, ormsgpack.packb(value, option=_OPTIONS))

    def _clean(self, value: Any) -> Any:
        match value:
            case str():
                return self._redact(value)
            case bytes():
                return self._clean_bytes(value)
            case dict():
                return {self._clean(key): self._clean(item) for key, item in value.items()}
            case list():
                return [self._clean(item) for item in value]
            case tuple():
                return tuple(self._clean(item) for item in value)
            case _:
                return value

    def _clean_bytes(self, value: bytes) -> bytes:
        try:
            return self._redact(value.decode()).encode()
        except UnicodeDecodeError:
            return value  # no text, so no secret that a person could have registered as text
