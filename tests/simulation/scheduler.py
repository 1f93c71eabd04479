"""Run the clients of a schedule on one table, in simulated time.

The scheduler decides whose step comes next, when time jumps, and what TTL deletes. All of it is
drawn from one seeded ``Random``; nothing takes real time.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from random import Random
from typing import Any

from chatledger.errors import ChatledgerError, ConversationDamaged, StoreUnavailable
from chatledger.stores.dynamodb.calls import Call, CallFailed, Plan, Wait, patient
from chatledger.stores.dynamodb.table import HOUR, SECOND
from tests.simulation.clients import Client, Process, record_giving_up
from tests.simulation.copies import OperationCall, copy_script
from tests.simulation.formatting import format_answer, format_operation
from tests.simulation.history import Operation
from tests.simulation.items import Key
from tests.simulation.network import (
    ClientCrashed,
    CommitUnfinished,
    Network,
    QueryUnfinished,
    TableLike,
)
from tests.simulation.operations import (
    COPY,
    ENTRY_KINDS,
    KINDS,
    OWNER_PLACES,
    KnownNumbers,
    Workload,
    draw_arguments,
    plan_for,
)
from tests.simulation.schedule_state import Environment, ScheduleState

MAX_STEPS = 4_000
"""The most steps that a schedule may take; a longer one never ends."""
WAKING = 0.02
"""The probability that a process that sleeps wakes up while others are at work."""
SLEEPS = (20 * 60 * SECOND, 2 * HOUR, 26 * HOUR, 60 * HOUR)
SHORT_JUMPS = (SECOND, 61 * SECOND, 20 * 60 * SECOND, HOUR)


class Violation(Exception):
    """Something happened that must never happen; its text says what."""


class Scheduler(ABC):
    """The clients of a schedule, and the ``history`` of what they called and were answered.

    What they call is up to the subclass.
    """

    def __init__(
        self,
        random: Random,
        environment: Environment,
        *,
        trace: bool = False,
        table: TableLike | None = None,
    ) -> None:
        self.history: list[Operation] = []
        self.state = ScheduleState(random, environment, [] if trace else None)
        self._network = Network(self.state, table)
        self._processes = 0
        self._clients: list[Client] = []
        self._planned_jump = 0
        """The time (ms) that is to pass as soon as no operation is under way."""
        for number in range(environment.clients):
            is_shared = self._clients and random.random() < environment.shared_process
            process = self._clients[-1].process if is_shared else self._new_process()
            remaining = (environment.operations + number) // environment.clients
            self._clients.append(Client(chr(65 + number), process, remaining))

    @property
    def table(self) -> TableLike:
        return self._network.table

    @contextmanager
    def without_faults(self) -> Generator[Client]:
        """Switch off all faults within the block, which gets a new client in a new process."""
        environment = self.state.environment
        self.state.environment = Environment(default_lifetimes=environment.default_lifetimes)
        try:
            yield Client("Z", self._new_process())
        finally:
            self.state.environment = environment

    def call(self, client: Client, kind: str, conversation: str, arguments: dict[str, Any]) -> Any:
        """Run one operation to its end while all other clients wait, and return its answer.

        Raises:
            Violation: It does not end, or is told that the store is unavailable, although nothing
                fails.
        """
        self.state.step += 1
        self._start(client, kind, conversation, arguments)
        last_step = self.state.step + MAX_STEPS
        while client.plan is not None:
            self.state.step += 1
            if self.state.step > last_step:
                raise Violation(f"{kind} does not end")
            self._take_step(client)
        if isinstance(client.answer, StoreUnavailable):
            raise Violation(f"{kind} of {conversation!r} is refused, although nothing fails")
        return client.answer

    def run(self) -> None:
        """Run the operations of all clients in a random interleaving, with faults."""
        random, environment = self.state.random, self.state.environment
        self.table.page_items = environment.page_items
        if environment.index_lag:
            self.table.delay_index(delay=True)
        if environment.stale_reads:
            self.table.keep_changes()
        client: Client | None = None
        last_step = self.state.step + MAX_STEPS
        while True:
            self.state.step += 1
            if self.state.step > last_step:
                raise Violation(f"the schedule did not end within {MAX_STEPS} steps")
            ready = [
                c
                for c in self._clients
                if c.received is None
                and (c.plan or ((c.remaining > 0 or c.script) and not self._planned_jump))
            ]
            asleep = [c for c in self._clients if c.received is not None]
            if asleep and random.random() < WAKING:
                ready.append(random.choice(asleep))
            if ready:
                if self._network.has_late_calls and random.random() < 0.1:
                    self._network.deliver_late_call()
                    continue
                self._disturb()
                if client not in ready or random.random() > environment.same_client:
                    client = random.choice(ready)
                self._take_step(client)
            elif self._planned_jump:
                self.advance_time(self._planned_jump)
                self._planned_jump = 0
            elif asleep:
                self.advance_time(random.choice(SLEEPS))
                if random.random() < 0.5:
                    self.delete_all_overdue()
                self._take_step(random.choice(asleep))
            else:
                break
        while self._network.has_late_calls:
            self._network.deliver_late_call()
        self._synchronize()
        if environment.index_lag:
            self.table.delay_index(delay=False)
        self.table.page_items = None

    def _disturb(self) -> None:
        """Let time jump and TTL delete an item, each with its probability."""
        random, environment = self.state.random, self.state.environment
        if environment.clock_change and random.random() < environment.clock_change:
            client = random.choice(self._clients)
            client.process.set_clock()
            self.state.add_to_trace(client.name, "has its clock set")
        if environment.index_lag and random.random() > environment.index_lag:
            self.table.update_index(random.choice((1, 2, None)))
        if environment.short_jump and random.random() < environment.short_jump:
            self.advance_time(self._time_to_expiry() or random.choice(SHORT_JUMPS))
        if environment.long_jump and random.random() < environment.long_jump:
            self._planned_jump = self._time_to_expiry() or random.choice(
                environment.long_jump_durations
            )
        if environment.ttl_deletion and random.random() < environment.ttl_deletion:
            self._delete_one_overdue()

    def _time_to_expiry(self) -> int:
        """Return the time (ms) to about the expiry of a conversation; 0 to choose another jump."""
        random = self.state.random
        if random.random() > self.state.environment.jump_to_expiry:
            return 0
        expiries = {int(item["x"]["N"]) for item in self.table.items() if "x" in item}
        future = sorted(expiry for expiry in expiries if expiry > self.state.now)
        if not future:
            return 0
        offset = random.choice((-40, -1, 0, 1, 40, HOUR + 40))
        return max(random.choice(future) - self.state.now + offset, 0)

    def advance_time(self, duration: int) -> None:
        """Let ``duration`` ms pass, or less: no call may stay under way for more than an hour."""
        state, random = self.state, self.state.random
        limits = [
            client.pending_since + HOUR
            for client in self._clients
            if client.plan and client.received is None and not isinstance(client.pending, Wait)
        ]
        duration = min([duration, *(limit - state.now for limit in limits)])
        if duration <= 0:
            return
        self._network.finish_late_calls(state.now + duration)
        state.now += duration
        if duration >= 60 * SECOND:
            self._synchronize()
        state.add_to_trace("", f"{duration / 1000:,.0f} s pass")
        for process in dict.fromkeys(client.process for client in self._clients):
            if random.random() < 0.7:  # else the process was frozen, and its monotonic clock stood
                process.monotonic += duration / 1000
            if random.random() < 0.1:
                process.set_clock()

    def _synchronize(self) -> None:
        """Let the index and eventually consistent reads have every change so far."""
        if self.state.environment.index_lag:
            self.table.update_index()
        if self.state.environment.stale_reads:
            self.table.keep_changes()
        self.state.synced_step = self.state.step

    def _delete_one_overdue(self) -> None:
        overdue = self.table.overdue_keys(self.state.now // 1000)
        if overdue:
            self._delete_overdue(self.state.random.choice(overdue))

    def delete_all_overdue(self) -> None:
        """Have TTL delete every item that it may delete by now."""
        for key in self.table.overdue_keys(self.state.now // 1000):
            self._delete_overdue(key)

    def _delete_overdue(self, key: Key) -> None:
        # A transaction locks its items until it is committed, also those that it only checks.
        self.table.commit()
        self.table.delete_overdue(key, self.state.now // 1000)
        self.state.add_to_trace("", f"TTL deletes {key[0]} {key[1]}")

    # Clients -------------------------------------------------------------------------------------

    @abstractmethod
    def _draw_operation(self, client: Client) -> OperationCall | None:
        """Draw the client's next operation; None if it can call none now."""

    @abstractmethod
    def _plan_for(self, client: Client, operation: Operation) -> Plan[Any]:
        """Return the plan of an operation that the client calls."""

    @abstractmethod
    def _check_answer(self, client: Client, operation: Operation) -> None:
        """Raise ``Violation`` if the client was given an answer that must never be given."""

    def _new_process(self) -> Process:
        self._processes += 1
        return Process(self.state, self.table.name, self._processes)

    def _take_step(self, client: Client) -> None:
        """Start the client's next operation, or take the step that its plan waits for."""
        state, random = self.state, self.state.random
        step = client.pending
        if client.received is not None:
            (reply, failed), client.received = client.received, None
            self._resume(client, reply, failed)
        elif step is None:
            if random.random() < state.environment.restart:
                client.process = self._new_process()
                state.add_to_trace(client.name, "restarts with an empty cache")
            operation = self._next_of_script(client) or self._draw_operation(client)
            if operation is not None:
                self._start(client, *operation)
        elif isinstance(step, Wait):
            wait = int(step.seconds * 1000) + 1
            state.now += wait
            client.process.monotonic += wait / 1000
            self._receive(client, None)
        else:
            state.now += random.choice(state.environment.call_durations)
            self._perform(client, step)

    def _next_of_script(self, client: Client) -> OperationCall | None:
        """Return the operation that the client's script calls next; None if it has none."""
        script, answer = client.script, client.answer
        if script is None:
            return None
        try:
            if isinstance(answer, ChatledgerError):
                return script.throw(answer)
            return script.send(answer)
        except (StopIteration, ChatledgerError):
            client.script = None
            return None

    def _perform(self, client: Client, call: Call) -> None:
        try:
            reply = self._network.send(client, call)
        except CallFailed as failed:
            self._receive(client, None, failed)
        except (QueryUnfinished, CommitUnfinished):
            pass
        except ClientCrashed:
            self._replace_crashed(client)
        else:
            self._receive(client, reply)

    def _receive(self, client: Client, reply: Any, failed: CallFailed | None = None) -> None:
        """Resume the client's plan with the reply or failure, unless its process falls asleep."""
        sleep = self.state.environment.sleep
        if sleep and self.state.random.random() < sleep:
            self.state.add_to_trace(client.name, "falls asleep")
            client.received = reply, failed
        else:
            self._resume(client, reply, failed)

    def _start(
        self, client: Client, kind: str, conversation: str, arguments: dict[str, Any]
    ) -> None:
        process = client.process
        operation = client.operation = Operation(
            number=len(self.history) + 1,
            client=client.name,
            kind=kind,
            conversation=conversation,
            arguments=arguments,
            default_lifetime=process.table.lifetime,
            clock_low=process.time,
            clock_high=process.time,
            start_step=self.state.step,
            lists_lag=self.state.environment.index_lag > 0,
        )
        self.history.append(operation)
        if self.state.trace is not None:
            self.state.add_to_trace(client.name, f"calls {format_operation(operation)}")
        client.plan = patient(
            record_giving_up(self._plan_for(client, operation), operation),
            seconds=self.state.environment.patience,
            monotonic=process.table.monotonic,
            random=self.state.random,
            time=process.table.time,
        )
        client.failing_calls = 0
        self._resume(client, None)

    def _resume(self, client: Client, reply: Any, failed: CallFailed | None = None) -> None:
        """Send the reply to the client's plan, or throw the failure into it."""
        plan, operation = client.plan, client.operation
        assert plan is not None
        assert operation is not None
        client.process.running_operation = operation
        try:
            client.pending = plan.throw(failed) if failed else plan.send(reply)
            client.pending_since = self.state.now
        except StopIteration as end:
            self._finish(client, operation, end.value)
        except ChatledgerError as error:
            self._finish(client, operation, error)
        except Exception as error:
            raise Violation(f"{operation.kind} raised {error!r}") from error
        finally:
            client.process.running_operation = None

    def _finish(self, client: Client, operation: Operation, answer: Any) -> None:
        self.state.step += 1
        operation.answer, operation.end_step = answer, self.state.step
        # The call may have arrived at any time until the answer.
        operation.clock_high = max(operation.clock_high, client.process.time)
        client.plan = client.operation = client.pending = None
        client.answer = answer
        if self.state.trace is not None:
            self.state.add_to_trace(
                client.name, f"is answered {format_answer(answer)}  [{operation.number}]"
            )
        self._check_answer(client, operation)

    def _replace_crashed(self, client: Client) -> None:
        """Remove a crashed client; a new one takes over the operations it had yet to start."""
        assert client.plan is not None
        client.plan.close()
        self._clients.remove(client)
        if client.remaining:
            process = self._new_process()
            name = f"{client.name[0]}{self._processes}"
            self._clients.append(Client(name, process, client.remaining))


class StoreScheduler(Scheduler):
    """The clients of a schedule that call the operations of the store."""

    def __init__(
        self,
        random: Random,
        workload: Workload,
        environment: Environment,
        *,
        trace: bool = False,
        table: TableLike | None = None,
    ) -> None:
        self.workload = workload
        self.known_numbers = KnownNumbers()
        super().__init__(random, environment, trace=trace, table=table)

    def _draw_operation(self, client: Client) -> OperationCall | None:
        """Draw the client's next operation; None if it has called all that it is to call."""
        random, workload = self.state.random, self.workload
        if client.remaining == 0:
            return None
        client.remaining -= 1
        kind = workload.choose_kind(random)
        conversation = random.choice(workload.conversations)
        if kind in ENTRY_KINDS and random.random() < 0.3:
            conversation = random.choice(OWNER_PLACES)
        if kind == "copy":
            target = random.choice((COPY, COPY, *workload.all_conversations))
            client.script = copy_script(conversation, target)
            return next(client.script)
        arguments = draw_arguments(
            kind, conversation, workload, self.known_numbers, random, self.state.now
        )
        return kind, conversation, arguments

    def _plan_for(self, client: Client, operation: Operation) -> Plan[Any]:
        table = client.process.table
        if KINDS[operation.kind].may_be_stale and not table.consistent:
            operation.sees_from = self.state.synced_step
        plan: Plan[Any] = plan_for(
            operation.kind, table, operation.conversation, operation.arguments
        )
        return plan

    def _check_answer(self, client: Client, operation: Operation) -> None:
        answer = operation.answer
        self.known_numbers.add(operation.conversation, answer)
        if isinstance(answer, ConversationDamaged):
            raise Violation(f"{operation.kind} misses message {answer.seq}")
