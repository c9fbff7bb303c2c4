"""The crash harness: kill an agent's process again and again, and judge by what really happened. See docs/crash-testing.md.

How it works
    A *run* of the harness is one task given to a fresh agent in a folder of its own. Each *attempt* at it is a forked process
    (`forking.py`), which a *fault* ends: SIGKILL at the n-th failpoint, the kernel's timer, a signal, a cancellation (`killing.py`).
    Attempts follow one another until one finishes the task; then the agent's own account is read by yet another process
    (`subject.py`) and held against the *world*: an append-only file to which the tools and the model wrote what they did
    (`world.py`). The judges are pure (`judging.py`); `campaign.py` says which faults fall; `report.py` adds up.

What must stay true
    1. Ground truth is outside the program: nothing that the agent says of itself counts as having happened.
    2. The process that forks is warm and has one thread: a child starts with everything imported and no lock held.
    3. A harness that cannot fail proves nothing: each judgement has a test that breaks it on purpose, and the same harness finds
       the losses of an agent whose write-ahead points are taken out, and of stock LangGraph (tests/crash).
"""

from agent_graph.testing.crash.campaign import Plan
from agent_graph.testing.crash.evidence import Account, Evidence, RecordedCall, Said, TurnAccount
from agent_graph.testing.crash.fuzz import crash_fuzz, fuzz
from agent_graph.testing.crash.report import CrashFound, CrashReport
from agent_graph.testing.crash.subject import Subject
from agent_graph.testing.crash.world import Bill, Effect, World

__all__ = [
    "Account",
    "Bill",
    "CrashFound",
    "CrashReport",
    "Effect",
    "Evidence",
    "Plan",
    "RecordedCall",
    "Said",
    "Subject",
    "TurnAccount",
    "World",
    "crash_fuzz",
    "fuzz",
]
