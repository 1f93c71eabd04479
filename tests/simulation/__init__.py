"""Deterministic simulation testing of the DynamoDB store, in the style of FoundationDB.

    python -m tests.simulation --seconds 600

A seed determines a schedule: several clients, each with a store of its own on one table in memory,
the operations they call, whose call comes next, which calls are lost, delayed or throttled, which
clients crash, when clocks jump and which items TTL deletes. The resulting history is then checked
against what the store's contract allows. The same seed always makes the same schedule, so a
failure can be examined, fixed and run again.
"""

from tests.simulation.expressions import Unsupported
from tests.simulation.parallel import SimulationSummary, run_schedules
from tests.simulation.schedules import ScheduleFailure, run_schedule, trace_schedule
from tests.simulation.simulated_table import SimulatedTable

__all__ = [
    "ScheduleFailure",
    "SimulatedTable",
    "SimulationSummary",
    "Unsupported",
    "run_schedule",
    "run_schedules",
    "trace_schedule",
]
