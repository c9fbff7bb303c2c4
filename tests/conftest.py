"""How the tests are run: Hypothesis profiles, and an environment without keys. Fixtures live beside the tests that use
them, or in `agent_graph.testing`."""

import os

from hypothesis import settings

# `quick` looks for new counter-examples at each run; `ci` repeats the same examples, so that a red run is the commit's
# doing. HYPOTHESIS_PROFILE=nightly searches long. No deadline: the machine may be busy, and time is not what is tested.
settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("nightly", max_examples=5_000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "quick"))

# A developer's own keys and settings: a test that reached for one would cost money, trace to an account, or pass on one
# machine only. Removed here and not in a fixture, so that child processes and module-level code do not see them either.
OF_THE_DEVELOPER = ("AGENT_GRAPH_", "ANTHROPIC_", "AZURE_OPENAI_", "GOOGLE_", "LANGCHAIN_", "LANGSMITH_", "OPENAI_")
for name in [name for name in os.environ if name.startswith(OF_THE_DEVELOPER)]:
    del os.environ[name]
