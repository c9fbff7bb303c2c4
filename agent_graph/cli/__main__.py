"""`python -m agent_graph.cli` is `agent-graph`."""

import sys

from agent_graph.cli import main

sys.exit(main())
