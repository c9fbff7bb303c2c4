"""A turn while it runs: its account and clock, its attempts at models and tools, its memory, and who may run it.

| to read about | look into |
|---|---|
| how a turn begins and ends | `asked` (what a caller wants), `closing` (of a turn that was given up), `driver` (the claim, the graph, the end), `hosting` (another graph drives), `owner` (the lease), `lineage` (sub-agents), `streaming`, `sync` |
| what a turn is | `turn`, its `clock`, `recorder` (who is told), `memory`, `history`, `transcript`, `account` (an AgentRun and its rows) |
| a model call | `model_call` (attempts), `governor` and `candidate` (which model, at what price), `billing`, `circuits`, `counter` and `vocabulary` (tokens), `text_relay` |
| its money | `ledger` (rows), `turn_account` (every account it counts in), `shares` and `held` (shared budgets), `landing` |
| a tool call | `tool_call` (what the journal says is done), `tools` (attempts) |
| a person, a rail | `asking` (the wait), `settling` (the word), `judging` (verdicts) |
| a list that is too long | `compressing` |
| code that is not ours | `foreign` (calling it), `deadline` (its time) |
| what holds, in plain words | `promises` |
"""  # noqa: E501  a table's row is one line
