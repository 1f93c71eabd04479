"""Schedules: several clients of histories in one simulated table, drawn from a seed."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from types import ModuleType
from typing import Any, cast

from chatledger.errors import ChatledgerError
from chatledger.langchain import plans, stored_history
from chatledger.langchain.stored_history import History
from chatledger.stores.dynamodb.calls import Attribute, Call, CallFailed, Item, Plan, Wait, patient
from tests.simulation.clients import Client, Process
from tests.simulation.history import Operation
from tests.simulation.langchain.checker import (
    PARTITION,
    Checker,
    HistoryOperation,
    Violation,
    state_of,
)
from tests.simulation.langchain.table import TTL_ATTRIBUTE, HistoriesTable
from tests.simulation.network import ClientCrashed, Network
from tests.simulation.schedule_state import Environment, ScheduleState

SECOND = 1_000
MAX_STEPS = 3_000
MAX_SKEW = 60 * SECOND
LATEST = 180 * SECOND
"""A request arrives within this time (ms), or never."""
ITEM_BYTES = 3_000
SMALL_LIMITS: tuple[tuple[ModuleType, str, int], ...] = (
    (stored_history, "ITEM_BYTES", ITEM_BYTES),
    (stored_history, "FIRST_ITEM_RESERVE", 150),
    (plans, "LARGEST_ARCHIVE", 1_200),
    (plans, "BATCH_KEYS", 2),
)


@contextmanager
def small_limits(random: Random) -> Generator[None]:
    """Let a few messages fill an item, and draw ids of histories and tokens from ``random``."""

    class Secrets:
        @staticmethod
        def token_urlsafe(size: int) -> str:
            return f"{random.getrandbits(8 * size):x}"

    values = [*SMALL_LIMITS, (stored_history, "secrets", Secrets)]
    before = [(module, name, getattr(module, name)) for module, name, _ in values]
    for module, name, value in values:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@dataclass(frozen=True, slots=True)
class Workload:
    """The actions of the clients in a schedule, and their frequencies."""

    sessions: tuple[str, ...]
    kinds: tuple[str, ...]
    weights: tuple[int, ...]
    lifetimes: tuple[int | None, ...]
    """In seconds."""
    first_item_bytes: tuple[int | None, ...]
    keeps: tuple[int | None, ...]
    jumps: tuple[int, ...]
    """In ms."""


def draw_environment(random: Random) -> Environment:
    has_faults = random.random() < 0.7
    return Environment(
        clients=random.choice((1, 2, 2, 3, 4)),
        operations=random.choice((6, 12, 20)),
        same_client=random.choice((0, 0.3, 0.7, 0.95)),
        call_failure=random.choice((0.03, 0.1, 0.25)) if has_faults else 0,
        late_call=random.choice((0, 0.7)),
        crash=random.choice((0, 0, 0.3)),
        partial_batch=random.choice((0, 0.3)),
        partial_reasons=random.choice((0, 0.5)),
        stale_reads=random.choice((0, 0.5)),
        call_durations=random.choice(((1,), (1, 20, 300), (5, 2_000))),
        short_jump=random.choice((0, 0.02, 0.1)),
        jump_to_expiry=random.choice((0, 0.5)),
        ttl_deletion=random.choice((0, 0.1, 0.5)),
        clock_skews=random.choice(((0,), (0, 500), (-MAX_SKEW // 2, 0, MAX_SKEW // 2))),
        sleep=random.choice((0, 0, 0.01)),
        patience=random.choice((0.5, 20.0)),
    )


def draw_workload(random: Random) -> Workload:
    old = random.random() < 0.3
    kinds = {"append": 6, "read": 3, "clear": random.choice((0, 1, 2))}
    if old:
        kinds |= {"old append": 2, "old clear": random.choice((0, 0, 1))}
    return Workload(
        sessions=random.choice((("session#1",), ("session#1", "session#2"))),
        kinds=tuple(kinds),
        weights=tuple(kinds.values()),
        lifetimes=random.choice(((None,), (None,), (3_600,), (900, 7_200), (None, 3_600))),
        first_item_bytes=random.choice(((300,), (600,), (None,), (300, None, 1_000))),
        keeps=random.choice(((None,), (None,), (3,), (None, 1, 5))),
        jumps=random.choice(((SECOND, 61 * SECOND), (1_200 * SECOND, 4_000 * SECOND))),
    )


class HistoryNetwork(Network):
    """The store's network; it notes whose call the table performs."""

    def __init__(self, state: ScheduleState, table: HistoriesTable) -> None:
        super().__init__(state, table)
        self.histories = table
        self.performing: HistoryOperation | None = None

    def _perform(self, call: Call, operation: Operation) -> Any:
        if call.operation == "DeleteItem":
            self.deliver_late_appends()
        before, self.performing = self.performing, cast(HistoryOperation, operation)
        try:
            return super()._perform(call, operation)
        finally:
            self.performing = before

    def deliver_late_appends(self) -> None:
        """Deliver the appends that are still under way.

        Only the item remembers what was appended. So it must not be assumed that a request arrives
        after its item was deleted, although it was sent before.
        """
        late, self._late_calls = self._late_calls, []
        for each in late:
            if _needs_no_item(each.call):
                self._deliver_late_call(each)
            else:
                self._late_calls.append(each)

    def limit_lateness(self, time: int) -> None:
        """Deliver or lose the requests that cannot be under way any longer at ``time``."""
        hour = 3_600 * SECOND
        self.finish_late_calls(time + hour - LATEST)

    def _trace(self, client: str, call: Call, outcome: Any) -> None:
        if self._state.trace is not None:
            self._state.add_to_trace(client, f"{call.operation} {_format(call)} {outcome}")


def _needs_no_item(call: Call) -> bool:
    """Return whether the call is an append that may create the first item."""
    if call.operation == "TransactWriteItems":
        update = call.params["TransactItems"][-1]["Update"]
        return "= :u" not in update["ConditionExpression"]
    return "list_append" in call.params.get("UpdateExpression", "")


def _format(call: Call) -> str:
    params = call.params
    if call.operation == "TransactWriteItems":
        return " and ".join(
            f"{kind} {write.get('Item', write.get('Key'))['sk']['S']}"
            for part in params["TransactItems"]
            for kind, write in part.items()
        )
    if "RequestItems" in params:
        return str(params["RequestItems"])
    return f"{params['Key']['sk']['S']} {params.get('UpdateExpression', '')}"


class Schedule:
    """One schedule: run it, and it raises ``Violation`` if anything is wrong."""

    def __init__(
        self, seed: int, *, trace: bool = False, make_table: type[HistoriesTable] = HistoriesTable
    ) -> None:
        self.random = Random(seed)
        self.workload = draw_workload(self.random)
        environment = draw_environment(self.random)
        self.state = ScheduleState(self.random, environment, [] if trace else None)
        self.table: HistoriesTable = make_table(
            item_bytes=ITEM_BYTES,
            changed=self._check_change,
            choose_stale=lambda: self.random.random() < self.state.environment.stale_reads,
            choose_unprocessed=self._choose_unprocessed,
        )
        self.network: HistoryNetwork = HistoryNetwork(self.state, self.table)
        self.checkers = {
            session: Checker(session, MAX_SKEW / SECOND) for session in self.workload.sessions
        }
        self._operations = 0
        self._processes = 0
        self._clients = [
            Client(chr(65 + n), self._new_process(), remaining=environment.operations // (n + 1))
            for n in range(environment.clients)
        ]

    def _choose_unprocessed(self, requests: Sequence[Any]) -> Sequence[Any]:
        is_partial = self.random.random() < self.state.environment.partial_batch
        return [request for request in requests if is_partial and self.random.random() < 0.5]

    def run(self) -> None:
        """Run all clients, and check what is left in the end."""
        client: Client | None = None
        while True:
            self._count_step()
            awake = [
                each
                for each in self._clients
                if each.received is None and (each.plan or each.remaining)
            ]
            asleep = [each for each in self._clients if each.received is not None]
            if asleep and (not awake or self.random.random() < 0.02):
                self._wake(self.random.choice(asleep), everyone_waits=not awake)
                continue
            if not awake:
                break
            if self.network.has_late_calls and self.random.random() < 0.1:
                self.network.deliver_late_call()
                continue
            self._disturb()
            if client not in awake or self.random.random() > self.state.environment.same_client:
                client = self.random.choice(awake)
            assert client is not None
            self._take_step(client)
        while self.network.has_late_calls:
            self.network.deliver_late_call()
        self._check_end()

    def _check_end(self) -> None:
        self.state.environment = Environment()
        for session, checker in self.checkers.items():
            client = Client("Z", self._new_process())
            found = self._call(client, session, "read", consistent=True)
            checker.check_final(found, client.process.time / SECOND)
            self._call(client, session, "clear")
            self._call(client, session, "append", ids=("last",))
            if self._call(client, session, "read", consistent=True) != ["last"]:
                raise Violation(f"{session} is not empty after a clear")
            self._call(client, session, "clear")
        kept = [item for item in self.table.items() if "chatledger_of" in item]
        for item in kept:
            session = item["chatledger_of"]["M"]["sk"]["S"]
            if not self.checkers[session].may_leave_archives:
                raise Violation(f"an archive of {session} is left over: {item['sk']}")
        if len(kept) < self.table._items.count:
            raise Violation("a first item is left over")

    def _call(self, client: Client, session: str, kind: str, **arguments: Any) -> Any:
        """Run one operation without faults or rivals, and return its answer."""
        self._start(client, session, kind, {"ids": (), "keep": None} | arguments)
        while client.plan is not None:
            self._count_step()
            self._take_step(client)
        if isinstance(client.answer, ChatledgerError):
            raise Violation(f"{kind} of {session} raised {client.answer!r}")
        return client.answer

    def _count_step(self) -> None:
        self.state.step += 1
        if self.state.step > MAX_STEPS:
            raise Violation(f"the schedule does not end within {MAX_STEPS} steps")

    # Time and TTL --------------------------------------------------------------------------------

    def _disturb(self) -> None:
        environment = self.state.environment
        if self.random.random() < environment.short_jump:
            self._advance_time(self._time_to_expiry() or self.random.choice(self.workload.jumps))
        if self.random.random() < environment.ttl_deletion:
            overdue = self.table.overdue_keys(self.state.now // SECOND)
            if overdue:
                key = self.random.choice(overdue)
                self.network.deliver_late_appends()
                self.state.add_to_trace("", f"TTL deletes {key[1]}")
                self.table.delete_overdue(key, self.state.now // SECOND)

    def _time_to_expiry(self) -> int:
        """Return the time (ms) until about the TTL of an item; 0 to choose another jump."""
        if self.random.random() > self.state.environment.jump_to_expiry:
            return 0
        ttls = [
            int(item[TTL_ATTRIBUTE]["N"]) for item in self.table.items() if TTL_ATTRIBUTE in item
        ]
        future = [ttl * SECOND - self.state.now for ttl in ttls if ttl * SECOND > self.state.now]
        return (
            max(1, self.random.choice(future) + self.random.choice((-900, 0, 1_100)))
            if future
            else 0
        )

    def _advance_time(self, duration: int) -> None:
        # A request that is under way arrives soon: AWS refuses old signatures.
        waiting = [
            each.pending_since + LATEST - self.state.now
            for each in self._clients
            if each.plan and each.received is None and isinstance(each.pending, Call)
        ]
        duration = min([duration, *waiting])
        if duration <= 0:
            return
        self.network.limit_lateness(self.state.now + duration)
        self.state.now += duration
        self.state.add_to_trace("", f"{duration / SECOND:,.1f} s pass")
        for process in {id(each.process): each.process for each in self._clients}.values():
            if self.random.random() < 0.7:  # else it was frozen
                process.monotonic += duration / SECOND

    def _wake(self, client: Client, *, everyone_waits: bool) -> None:
        if everyone_waits:
            self._advance_time(self.random.choice((600, 4_000, 90_000)) * SECOND)
        assert client.received is not None
        (reply, failed), client.received = client.received, None
        self._resume(client, reply, failed)

    # Clients -------------------------------------------------------------------------------------

    def _new_process(self) -> Process:
        self._processes += 1
        return Process(self.state, self.table.name, self._processes)

    def _take_step(self, client: Client) -> None:
        step = client.pending
        if client.plan is None:
            client.remaining -= 1
            self._start(client, *self._draw_operation())
        elif isinstance(step, Wait):
            self.state.now += int(step.seconds * SECOND) + 1
            client.process.monotonic += step.seconds
            self._receive(client, None)
        else:
            assert step is not None
            self.state.now += self.random.choice(self.state.environment.call_durations)
            try:
                reply = self.network.send(client, step)
            except CallFailed as failed:
                self._receive(client, None, failed)
            except ClientCrashed:
                client.plan = client.operation = client.pending = None
                client.process = self._new_process()
            else:
                self._receive(client, reply)

    def _receive(self, client: Client, reply: Any, failed: CallFailed | None = None) -> None:
        if self.random.random() < self.state.environment.sleep:
            self.state.add_to_trace(client.name, "falls asleep")
            client.received = reply, failed
        else:
            self._resume(client, reply, failed)

    def _draw_operation(self) -> tuple[str, str, dict[str, Any]]:
        workload, random = self.workload, self.random
        session = random.choice(workload.sessions)
        (kind,) = random.choices(workload.kinds, workload.weights)
        count = random.choice((1, 1, 1, 2, 5))
        ids = tuple(f"{self._operations}.{n}" for n in range(count))
        arguments: dict[str, Any] = {
            "ids": ids if kind in ("append", "old append") else (),
            "keep": random.choice(workload.keeps) if kind == "append" else None,
            "consistent": random.random() < 0.8,
            "lifetime": random.choice(workload.lifetimes),
            "first_item_bytes": random.choice(workload.first_item_bytes),
        }
        return session, kind, arguments

    def _start(self, client: Client, session: str, kind: str, arguments: dict[str, Any]) -> None:
        self._operations += 1
        process = client.process
        operation = HistoryOperation(
            number=self._operations,
            client=client.name,
            kind=kind,
            conversation=session,
            arguments=arguments,
            clock_low=process.time // SECOND,
            clock_high=process.time / SECOND,
            start_step=self.state.step,
        )
        self.state.add_to_trace(client.name, f"calls {kind} {session} {arguments}")
        client.operation = cast(Operation, operation)
        client.plan = patient(
            self._plan(client, operation),
            seconds=self.state.environment.patience,
            monotonic=lambda: process.monotonic,
            random=self.random,
            time=lambda: process.time,
        )
        self._resume(client, None)

    def _plan(self, client: Client, operation: HistoryOperation) -> Plan[Any]:
        process, arguments = client.process, operation.arguments
        history = History(
            table_name=self.table.name,
            key={"pk": {"S": PARTITION}, "sk": {"S": operation.conversation}},
            messages_attribute="History",
            ttl_attribute=TTL_ATTRIBUTE,
            lifetime=arguments.get("lifetime"),
            first_item_bytes=arguments.get("first_item_bytes"),
            consistent=arguments.get("consistent", True),
            clock=lambda: process.time / SECOND,
            random=self.random,
        )
        elements = [_element(id, self.random) for id in arguments["ids"]]
        match operation.kind:
            case "append":
                return plans.append_messages(history, elements, keep=arguments["keep"])
            case "read":
                return _read_ids(history)
            case "clear":
                return plans.clear_history(history)
            case "old append":
                return _append_as_the_old_class(history, elements)
            case _:
                return _clear_as_the_old_class(history)

    def _resume(self, client: Client, reply: Any, failed: CallFailed | None = None) -> None:
        plan, operation = client.plan, cast(HistoryOperation, client.operation)
        assert plan is not None
        try:
            client.pending = plan.throw(failed) if failed else plan.send(reply)
            client.pending_since = self.state.now
            return
        except StopIteration as end:
            answer = end.value
        except ChatledgerError as error:
            answer = error
        except CallFailed as error:
            if operation.kind != "old append":
                raise Violation(f"{operation.kind} raised {error!r}") from error
            answer = None  # its item would be too large
        self.state.step += 1
        client.answer = answer
        client.plan = client.operation = client.pending = None
        operation.clock_high = client.process.time / SECOND
        self.state.add_to_trace(client.name, f"is answered {answer!r}")
        self.checkers[operation.conversation].check_answer(operation, answer)

    def _check_change(self) -> None:
        operation = self.network.performing
        for session, checker in self.checkers.items():
            state = state_of(self.table.item, session, self.state.step)
            own = operation if operation and operation.conversation == session else None
            checker.check_change(state, own, self.state.now / SECOND)


def _element(id: str, random: Random) -> Attribute:
    content = {"S": "x" * random.choice((5, 40, 40, 150, 400))}
    return {"M": {"type": {"S": "human"}, "data": {"M": {"content": content, "id": {"S": id}}}}}


def _read_ids(history: History) -> Plan[list[str]]:
    contents = yield from plans.read_history(history)
    return [element["M"]["data"]["M"]["id"]["S"] for element in contents.elements]


def _append_as_the_old_class(history: History, elements: Sequence[Attribute]) -> Plan[None]:
    """Read the list and write it back with the new messages, as langchain-community 0.4.2 does."""
    first: Item = (yield history.get(consistent=False)).get("Item", {})
    values: dict[str, Attribute] = {":h": {"L": [*first.get("History", {"L": []})["L"], *elements]}}
    names = {"#h": "History"}
    setting = "SET #h = :h"
    if history.lifetime:
        setting += ", #t = :t"
        names["#t"] = history.ttl_attribute
        values[":t"] = {"N": str(history.now() + history.lifetime)}
    params = {
        "TableName": history.table_name,
        "Key": history.key,
        "UpdateExpression": setting,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }
    yield Call("UpdateItem", params)


def _clear_as_the_old_class(history: History) -> Plan[None]:
    yield Call("DeleteItem", {"TableName": history.table_name, "Key": history.key})


def run_schedule(seed: int, make_table: type[HistoriesTable] = HistoriesTable) -> None:
    """Run one schedule, on a table of that type.

    Raises:
        Violation: Something is wrong; the text ends with the seed.
    """
    with small_limits(Random(seed)):
        try:
            Schedule(seed, make_table=make_table).run()
        except Violation as violation:
            raise Violation(f"{violation} (seed {seed})") from violation


def trace_schedule(seed: int) -> str:
    """Return the trace of a schedule, with what is wrong at its end."""
    with small_limits(Random(seed)):
        schedule = Schedule(seed, trace=True)
        try:
            schedule.run()
            end = "nothing is wrong"
        except Violation as violation:
            end = str(violation)
    assert schedule.state.trace is not None
    return "\n".join([*schedule.state.trace, end])
