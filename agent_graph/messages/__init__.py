"""The specification's `Message` <-> LangChain's messages, without loss in either direction.

Both sides say the same in different fields. `Message` has a role, a text and a metadata mapping; LangChain has a class
per role, content blocks, and fields for tool calls, usage and provenance. One rule is used twice:

- *A LangChain message becomes a `Message`* (spec.py): the text goes into `content`, and what our documented layout
  knows (docs/backends.md: `tool_calls`, `usage`, `model`, `finish_reason`, `cost_usd`, `tool_call_id`, `name`) into
  `metadata`. Then the result is read back. Every field that does not come out as it went in (blocks, ids, the
  provider's own data) is put into `metadata["langchain"]` as plain JSON. So losslessness holds by construction, and a
  plain message has plain metadata.
- *A `Message` becomes a LangChain message* (langchain.py): it is read tolerantly (fields.py), since users' backends
  write many layouts. Then the result is written back. Where that is not the metadata that came in, the original is kept
  in `response_metadata["agent_graph"]` (kept.py), and comes back unchanged. Replies of an `LLMBackend` always keep it.

An id that was merely made up (`lc_...`, LangChain's own prefix for those) is not worth a place in the metadata: within
a run the `Conversion` remembers it, after a restart another serves as well. Artifacts that have no JSON form are not
for the model and are dropped. A message chunk is read as the message that it makes.
"""

from agent_graph.messages.conversion import Conversion, current_conversion, ensure_id
from agent_graph.messages.langchain import to_ai_message

__all__ = ["Conversion", "current_conversion", "ensure_id", "to_ai_message"]
