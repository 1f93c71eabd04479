"""Deterministic simulation of DynamoDB stores, as FoundationDB tests itself.

    python -m chatledger.testing.simulation --seconds 600

A seed makes a schedule: some clients, each a store of its own on one table in memory, what they
ask for, whose call comes next, which are lost, late or throttled, who dies, when clocks jump and
what TTL deletes. The history is then checked against what the contract of stores allows. The same
seed makes the same schedule, so that what was found can be looked at, mended and tried again.
"""

from chatledger.testing.simulation.dynamodb import SimulatedTable
from chatledger.testing.simulation.expressions import Unknown
from chatledger.testing.simulation.running import Played, play
from chatledger.testing.simulation.schedules import Failure, script, simulate

__all__ = ["Failure", "Played", "SimulatedTable", "Unknown", "play", "script", "simulate"]
