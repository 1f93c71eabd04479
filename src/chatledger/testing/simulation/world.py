"""Many clients on one table, in simulated time: who goes next, and what happens beside.

Everything is drawn from one seed. Nothing here takes real time.
"""

from collections.abc import Generator
from contextlib import contextmanager
from random import Random
from typing import Any

from chatledger.errors import ChatledgerError
from chatledger.stores.dynamodb.calls import Call, CallFailed, Wait, patient
from chatledger.stores.dynamodb.table import HOUR, SECOND
from chatledger.testing.simulation import operations
from chatledger.testing.simulation.clients import Client, Process, watched
from chatledger.testing.simulation.formatting import in_words, spelled
from chatledger.testing.simulation.history import Operation
from chatledger.testing.simulation.items import Key
from chatledger.testing.simulation.network import AnyTable, Died, Network, UnderWay
from chatledger.testing.simulation.operations import Known, Taste
from chatledger.testing.simulation.schedule_state import Circumstances, Course

MOST_STEPS = 4_000
"""Of one schedule: more means that somebody goes round in a circle."""
SHORT_JUMPS = (SECOND, 61 * SECOND, 20 * 60 * SECOND, HOUR)


class Wrong(Exception):
    """What was seen that should not be."""


class World:
    """Clients, and what they do and are answered: ``history``, and ``script`` if it is kept."""

    def __init__(
        self,
        random: Random,
        taste: Taste,
        rough: Circumstances,
        *,
        trace: bool = False,
        table: AnyTable | None = None,
    ) -> None:
        self.taste = taste
        self.history: list[Operation] = []
        self.known = Known()
        self.course = Course(random, rough, [] if trace else None)
        self._network = Network(self.course, table)
        self._processes = 0
        self._clients: list[Client] = []
        self._wish = 0
        """How long is to pass once no operation is under way."""
        for number in range(rough.clients):
            shares = self._clients and random.random() < rough.shared
            process = self._clients[-1].process if shares else self._process()
            todo = (rough.operations + number) // rough.clients
            self._clients.append(Client(chr(65 + number), process, todo))

    @property
    def table(self) -> AnyTable:
        return self._network.table

    @contextmanager
    def calm(self) -> Generator[Client]:
        """Within, nothing goes wrong for a client that knows nothing of the past."""
        rough = self.course.rough
        self.course.rough = Circumstances(lifetimes=rough.lifetimes)
        try:
            yield Client("Z", self._process())
        finally:
            self.course.rough = rough

    def ask(self, client: Client, kind: str, conversation: str, given: dict[str, Any]) -> Any:
        """What an operation is answered, of one client alone."""
        self.course.step += 1
        self._begin(client, kind, conversation, given)
        most = self.course.step + MOST_STEPS
        while client.plan is not None:
            self.course.step += 1
            if self.course.step > most:
                raise Wrong(f"{kind} does not end")
            self._advance(client)
        return self.history[-1].answer

    def play(self) -> None:
        """Have all clients do what they have to do, in some order, with what may go wrong."""
        random, rough = self.course.random, self.course.rough
        self.table.page_items = rough.page_items
        last: Client | None = None
        most = self.course.step + MOST_STEPS
        while True:
            self.course.step += 1
            if self.course.step > most:
                raise Wrong(f"after {MOST_STEPS} steps there is no end in sight")
            ready = [c for c in self._clients if c.plan or (c.todo > 0 and not self._wish)]
            if ready:
                if self._network.busy and random.random() < 0.1:
                    self._network.arrive()
                    continue
                self._happen()
                if last not in ready or random.random() > rough.sticky:
                    last = random.choice(ready)
                self._advance(last)
            elif self._wish:
                self.pass_time(self._wish)
                self._wish = 0
            else:
                break
        while self._network.busy:
            self._network.arrive()
        self.table.page_items = None

    def _happen(self) -> None:
        """What happens beside clients' steps."""
        random, rough = self.course.random, self.course.rough
        if rough.short_jumps and random.random() < rough.short_jumps:
            self.pass_time(self._until_an_end() or random.choice(SHORT_JUMPS))
        if rough.long_jumps and random.random() < rough.long_jumps:
            self._wish = self._until_an_end() or random.choice(rough.spans)
        if rough.reaping and random.random() < rough.reaping:
            self._reap()

    def _until_an_end(self) -> int:
        """Now and then: how long it is until about when a conversation expires; else 0."""
        random = self.course.random
        if random.random() > self.course.rough.to_ends:
            return 0
        ends = {int(item["x"]["N"]) for item in self.table.items() if "x" in item}
        coming = sorted(end for end in ends if end > self.course.now)
        if not coming:
            return 0
        about = random.choice((-40, -1, 0, 1, 40, HOUR + 40))
        return max(random.choice(coming) - self.course.now + about, 0)

    def pass_time(self, duration: int) -> None:
        """Time passes, so long at most; but no call stays under way for over an hour."""
        course, random = self.course, self.course.random
        ends = [client.since + HOUR for client in self._clients if client.plan is not None]
        duration = min([duration, *(end - course.now for end in ends)])
        if duration <= 0:
            return
        self._network.settle(course.now + duration)
        course.now += duration
        course.tell("", f"{duration / 1000:,.0f} s pass")
        for process in dict.fromkeys(client.process for client in self._clients):
            if random.random() < 0.7:  # else it was frozen
                process.monotonic += duration / 1000
            if random.random() < 0.1:
                process.skew = random.choice(course.rough.skews)

    def _reap(self) -> None:
        overdue = self.table.overdue(self.course.now // 1000)
        if overdue:
            self._eat(self.course.random.choice(overdue))

    def reap_all(self) -> None:
        """TTL deletes whatever it may."""
        for key in self.table.overdue(self.course.now // 1000):
            self._eat(key)

    def _eat(self, key: Key) -> None:
        self.table.reap(key, self.course.now // 1000)
        self.course.tell("", f"TTL deletes {key[0]} {key[1]}")

    # Clients -------------------------------------------------------------------------------------

    def _process(self) -> Process:
        self._processes += 1
        return Process(self.course, self.table.name, self._processes)

    def _advance(self, client: Client) -> None:
        """The client's next step."""
        course, random = self.course, self.course.random
        step = client.pending
        if step is None:
            if random.random() < course.rough.cold:
                client.process = self._process()
                course.tell(client.name, "starts anew, and remembers nothing")
            client.todo -= 1
            kind = self.taste.kind(random)
            conversation = random.choice(self.taste.conversations)
            given = operations.arguments(kind, conversation, self.taste, self.known, random)
            self._begin(client, kind, conversation, given)
        elif isinstance(step, Wait):
            wait = int(step.seconds * 1000) + 1
            course.now += wait
            client.process.monotonic += wait / 1000
            self._resume(client, None)
        else:
            course.now += random.choice(course.rough.ticks)
            self._carry(client, step)

    def _carry(self, client: Client, call: Call) -> None:
        try:
            reply = self._network.carry(client, call)
        except CallFailed as failed:
            self._resume(client, None, failed)
        except UnderWay:
            pass
        except Died:
            self._bury(client)
        else:
            self._resume(client, reply)

    def _begin(self, client: Client, kind: str, conversation: str, given: dict[str, Any]) -> None:
        process = client.process
        operation = client.operation = Operation(
            number=len(self.history) + 1,
            client=client.name,
            kind=kind,
            conversation=conversation,
            arguments=given,
            default=process.table.lifetime,
            low=process.time,
            high=process.time,
            begun=self.course.step,
        )
        self.history.append(operation)
        if self.course.script is not None:
            self.course.tell(client.name, f"begins {spelled(operation)}")
        plan = operations.plan(kind, process.table, conversation, given)
        client.plan = patient(
            watched(plan, operation),
            seconds=self.course.rough.patience,
            monotonic=process.table.monotonic,
            random=self.course.random,
        )
        client.outage = 0
        self._resume(client, None)

    def _resume(self, client: Client, reply: Any, failed: CallFailed | None = None) -> None:
        plan, operation = client.plan, client.operation
        assert plan is not None
        assert operation is not None
        client.process.running = operation
        try:
            client.pending = plan.throw(failed) if failed else plan.send(reply)
            client.since = self.course.now
        except StopIteration as end:
            self._finish(client, operation, end.value)
        except ChatledgerError as error:
            self._finish(client, operation, error)
        except Exception as error:
            raise Wrong(f"{operation.kind} raised {error!r}") from error
        finally:
            client.process.running = None

    def _finish(self, client: Client, operation: Operation, answer: Any) -> None:
        self.course.step += 1
        operation.answer, operation.done = answer, self.course.step
        client.plan = client.operation = client.pending = None
        self.known.learn(operation.conversation, answer)
        if self.course.script is not None:
            self.course.tell(client.name, f"is answered {in_words(answer)}  [{operation.number}]")

    def _bury(self, client: Client) -> None:
        assert client.plan is not None
        client.plan.close()
        self._clients.remove(client)
        if client.todo:
            # Somebody else does what it had still to do.
            process = self._process()
            heir = Client(f"{client.name[0]}{self._processes}", process, client.todo)
            self._clients.append(heir)
