"""Schedules: several savers on one simulated table, drawn from a seed."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import count
from random import Random
from types import ModuleType
from typing import Any, cast

from langgraph.checkpoint.base import CheckpointTuple, get_checkpoint_metadata
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from chatledger.errors import ChatledgerError
from chatledger.langgraph import maintenance, plans, records, values
from chatledger.langgraph.plans import Plans
from chatledger.langgraph.records import StoredWrites, conversation_of
from chatledger.langgraph.settings import Pause, Settings, Steps
from chatledger.langgraph.thread import Thread, ThreadCache
from chatledger.langgraph.values import restore
from chatledger.stores.dynamodb.calls import Plan, Wait
from chatledger.stores.dynamodb.table import DAY, HOUR, SECOND
from tests.simulation.clients import Client, Process
from tests.simulation.copies import OperationCall
from tests.simulation.history import Operation
from tests.simulation.langgraph.model import Action, Fact, Model, Put, ThreadModel, Write
from tests.simulation.langgraph.runs import OWNER_KEY, Clock, Script, Scripts, Workload
from tests.simulation.limits import simulation_settings
from tests.simulation.schedule_state import Environment, ScheduleState
from tests.simulation.scheduler import Scheduler, Violation
from tests.stores.dynamodb.plan_store import plans_on

SMALL_LIMITS: tuple[tuple[ModuleType, str, int], ...] = (
    (plans, "WARM_LIMIT", 2),
    (plans, "MAX_LIMIT", 5),
    (maintenance, "MAX_LIMIT", 4),
    (maintenance, "RESTORE_CHARACTERS", 900),
    (records, "PIECE_CHARACTERS", 600),
    (records, "MAX_PIECES", 100),
    (values, "SHARED_BYTES", 16),
    (values, "LONG_TEXT", 40),
    (values, "MAX_SPLITS", 2),
)
SERDE = JsonPlusSerializer()
READS = ("get_tuple", "list", "delta_history")


@contextmanager
def small_limits() -> Generator[None]:
    """Let a few records and elements reach the limits of the saver and the store."""
    runs = count(1)
    changes = [*SMALL_LIMITS, (plans, "token_hex", lambda _: f"run-{next(runs)}")]
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        with simulation_settings():
            yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


class SaverProcess(Process):
    """A process with a saver, whose threads and locks its clients share."""

    def __init__(
        self, state: ScheduleState, table: str, number: int, *, rivals: Any, numbers: "count[int]"
    ) -> None:
        super().__init__(state, table, number)
        cache_bytes = state.random.choice((10_000_000, 10_000_000, 10_000, 0))
        settings = Settings(
            store=plans_on(self.table),
            rivals=rivals,
            messages=None,
            owner_key=OWNER_KEY,
            expires_in=None,
            cache=ThreadCache(cache_bytes),
            random=state.random,
            clock=lambda: (self.time / SECOND, self.monotonic),
        )
        self.plans = Plans(settings, SERDE)
        self.locked: set[str] = set()
        self.ids = Clock(numbers)

    def run(self, thread: str, steps: Steps[Any]) -> Plan[Any]:
        """Run the steps while no other client of this process uses the thread."""
        while thread in self.locked:
            yield Wait(0.01)
        self.locked.add(thread)
        try:
            return (yield from _calls_of(steps))
        finally:
            self.locked.discard(thread)


def _calls_of(steps: Steps[Any]) -> Plan[Any]:
    """Run the steps, whose store operations return their plans."""
    result: Any = None
    error: ChatledgerError | None = None
    while True:
        try:
            step = steps.send(result) if error is None else steps.throw(error)
        except StopIteration as end:
            return end.value
        result, error = None, None
        try:
            if isinstance(step, Pause):
                yield Wait(step.seconds)
            else:
                result = yield from step()
        except ChatledgerError as raised:
            error = raised


class SaverScheduler(Scheduler):
    """The clients of a schedule, which run graphs and call savers."""

    def __init__(
        self,
        random: Random,
        workload: Workload,
        environment: Environment,
        *,
        rivals: str,
        trace: bool = False,
    ) -> None:
        (lifetime,) = environment.default_lifetimes
        skews = environment.clock_skews
        self.model = Model(
            refuses_rivals=rivals == "refuse", lifetime=lifetime, skew=max(skews) - min(skews)
        )
        self._rivals = rivals
        self._workload = workload
        self._scripts = Scripts(random, workload, self.model)
        self._checkpoints = count(1)
        self._actions: dict[int, tuple[Action, list[Fact]]] = {}
        super().__init__(random, environment, trace=trace)

    def _new_process(self) -> Process:
        self._processes += 1
        return SaverProcess(
            self.state,
            self.table.name,
            self._processes,
            rivals=self._rivals,
            numbers=self._checkpoints,
        )

    def _draw_operation(self, client: Client) -> OperationCall | None:
        if client.remaining == 0:
            return None
        client.remaining -= 1
        if self.state.random.random() < self._workload.restarts:
            client.process = self._new_process()
            self.state.add_to_trace(client.name, "restarts with an empty cache")
        process = cast(SaverProcess, client.process)
        process.ids.time = process.time
        client.script = self._scripts.draw(process.ids)
        return next(client.script)

    def check_end(self) -> None:
        """Have a new process read all threads, continue them, and delete them."""
        with self.without_faults() as client:
            process = cast(SaverProcess, client.process)
            for id, thread in list(self.model.threads.items()):
                places = [
                    {"thread_id": id, "checkpoint_ns": namespace, OWNER_KEY: owner}
                    for owner, namespace in {
                        (each.owner, each.namespace) for each in thread.facts()
                    }
                ]
                places.sort(key=str)
                for place in places:
                    self._play(client, self._scripts.read_all(place))
                known = process.plans.settings.cache.get(conversation_of(id))
                if known is not None and not thread.removals:
                    _check_records(known, id)
                for place in places[:1]:
                    self._play(client, self._scripts.run(process.ids, place))
                self._play(client, self._scripts.delete(id))
                for place in places:
                    self._play(client, self._scripts.read_all(place))

    def _play(self, client: Client, script: Script) -> None:
        """Call the operations of the script, while all other clients wait."""
        client.script, client.answer = script, None
        process = cast(SaverProcess, client.process)
        process.ids.time = process.time
        while (operation := self._next_of_script(client)) is not None:
            self.call(client, *operation)

    # Starting operations -------------------------------------------------------------------------

    def _plan_for(self, client: Client, operation: Operation) -> Plan[Any]:
        process, arguments = cast(SaverProcess, client.process), operation.arguments
        process.ids.time = process.time
        config = arguments.get("config", {"configurable": {}})
        action = Action(
            number=operation.number,
            kind=operation.kind,
            owner=config["configurable"].get(OWNER_KEY),
            run=arguments["run"],
            start=self.state.step,
            began=self.state.now,
        )
        thread = self._thread(operation)
        facts = self._add_facts(action, thread, arguments)
        self._actions[operation.number] = action, facts
        saver = process.plans
        match operation.kind:
            case "get_tuple":
                steps: Steps[Any] = saver.get_tuple(config)
            case "list":
                steps = _list(saver, config)
            case "delta_history":
                steps = saver.delta_history(config, arguments["channels"])
            case "put":
                checkpoint, metadata = arguments["checkpoint"], arguments["metadata"]
                steps = saver.put(config, checkpoint, metadata, arguments["new_versions"])
            case "put_writes":
                task = arguments["task_id"], arguments["task_path"]
                steps = saver.put_writes(config, arguments["writes"], *task)
            case "delete_thread":
                steps = maintenance.delete(saver, thread.id)
            case "prune":
                steps = maintenance.prune(saver, thread.id, "keep_latest")
            case "copy_thread":
                steps = maintenance.copy(saver, thread.id, arguments["target"])
            case _:
                return _delete_for_runs(process, arguments["run_ids"])
        return process.run(thread.id, steps)

    def _thread(self, operation: Operation) -> ThreadModel:
        """Return the thread of the operation; an empty one if it is called for all threads."""
        id = operation.conversation
        return self.model.thread(id) if id else ThreadModel("")

    def _add_facts(
        self, action: Action, thread: ThreadModel, arguments: dict[str, Any]
    ) -> list[Fact]:
        """Tell the model what the operation writes or removes."""
        place = arguments.get("config", {}).get("configurable", {})
        namespace, checkpoint_id = place.get("checkpoint_ns", ""), place.get("checkpoint_id")
        match action.kind:
            case "put":
                config, checkpoint = arguments["config"], arguments["checkpoint"]
                metadata = get_checkpoint_metadata(config, arguments["metadata"])
                self.model.add_put(action, thread, namespace, checkpoint_id, checkpoint, metadata)
            case "put_writes":
                task = arguments["task_id"], arguments["task_path"]
                at = namespace, checkpoint_id
                self.model.add_writes(action, thread, at, arguments["writes"], task)
            case "delete_thread" | "prune":
                self.model.add_removal(action, thread)
            case "delete_for_runs":
                self.model.add_removal(action, None, arguments["run_ids"])
            case "copy_thread":
                target = self.model.thread(arguments["target"])
                self.model.begin_copy(action, thread, target)
        return [fact for fact in thread.facts() if fact.action is action]

    # Checking answers ----------------------------------------------------------------------------

    def _check_answer(self, client: Client, operation: Operation) -> None:
        action, facts = self._actions.pop(operation.number)
        action.end, action.ended = self.state.step, self.state.now
        thread, answer = self._thread(operation), operation.answer
        if isinstance(answer, ChatledgerError):
            self.model.check_error(action, answer, facts)
            return
        action.land(action.end, action.ended)
        config = operation.arguments.get("config", {})
        match operation.kind:
            case "get_tuple":
                self._check_tuple(thread, answer, action, config["configurable"])
                action.run.read = action
            case "list":
                self._check_list(thread, answer, action, config["configurable"])
            case "delta_history":
                place = config["configurable"]
                put = thread.puts[place["checkpoint_ns"], place["checkpoint_id"]]
                since = action.run.read or action
                self.model.check_history(thread, put, answer, action, since)
            case "put":
                (put,) = (fact for fact in facts if isinstance(fact, Put))
                self.model.check_put(put)
            case "put_writes":
                self.model.check_writes(action, [each for each in facts if isinstance(each, Write)])
            case "copy_thread":
                target = self.model.thread(operation.arguments["target"])
                thread.copies.remove((target, action))

    def _check_tuple(
        self,
        thread: ThreadModel,
        found: CheckpointTuple | None,
        read: Action,
        place: dict[str, Any],
    ) -> None:
        namespace, id = place["checkpoint_ns"], place.get("checkpoint_id")
        puts = []
        if found is not None:
            puts = [self.model.check_found(thread, found, read, namespace)]
            if id not in (None, found.checkpoint["id"]):
                raise Violation(f"checkpoint {found.checkpoint['id']} is read instead of {id}")
        if id is None:
            self.model.check_newest(thread, puts[0] if puts else None, read, namespace)
        else:
            self.model.check_missing(thread, puts, read, namespace, id)

    def _check_list(
        self,
        thread: ThreadModel,
        found: Sequence[CheckpointTuple],
        read: Action,
        place: dict[str, Any],
    ) -> None:
        namespace = place["checkpoint_ns"]
        puts = [self.model.check_found(thread, each, read, namespace) for each in found]
        ids = [put.checkpoint_id for put in puts]
        if ids != sorted(set(ids), reverse=True):
            raise Violation(f"the checkpoints of {thread.id} are listed as {ids}")
        self.model.check_missing(thread, puts, read, namespace, None)


def _check_records(thread: Thread, id: str) -> None:
    """Check that each record of the thread, of which nothing was removed, landed once."""
    stored = [
        *(checkpoint.id for checkpoint in thread._checkpoint_at.values()),
        *(
            (record.checkpoint_id, record.task_id, index, str(restore(node, SERDE)))
            for record in thread.records()
            if isinstance(record, StoredWrites)
            for index, _, node in record.writes
        ),
    ]
    if len(stored) != len(set(stored)):
        raise Violation(f"a record of {id} has landed twice: {stored}")


def _list(saver: Plans, config: Any) -> Steps[tuple[CheckpointTuple, ...]]:
    """Return what ``ChatledgerSaver.list`` yields for the thread of the config."""
    snapshot = yield from saver.snapshot(config)
    if snapshot is None:
        return ()
    namespace = config["configurable"]["checkpoint_ns"]
    found = snapshot.matching(namespace=namespace, before_id=None, filter=None)
    return tuple(snapshot.tuple_of(each) for each in found)


def _delete_for_runs(process: SaverProcess, run_ids: tuple[str, ...]) -> Plan[None]:
    """Do what ``ChatledgerSaver.delete_for_runs`` does."""
    cursor: str | None = None
    while True:
        ids, cursor = yield from _calls_of(process.plans.thread_ids(None, cursor))
        for id in ids:
            steps = maintenance.delete_runs(process.plans, id, set(run_ids))
            yield from process.run(id, steps)
        if cursor is None:
            return


# Drawing schedules --------------------------------------------------------------------------------


def draw_schedule(seed: int, *, trace: bool = False) -> SaverScheduler:
    """Draw the workload and the environment of that seed."""
    random = Random(seed)
    choose = random.choice
    lifetime = choose((None, None, None, 10 * 60 * SECOND, HOUR, 2 * DAY))
    expires = random.random() < 0.15  # threads expire, are deleted by TTL, and begin anew
    maintains = choose((0, 0, 1, 1, 4))
    prunes = maintains * choose((0, 1))
    if is_pruned := random.random() < 0.1:  # often, while others know the thread
        prunes = 6
    workload = Workload(
        threads=choose((("a",), ("a",), ("a", "b"))) if not is_pruned else ("a",),
        namespaces=choose((("",), ("",), ("", "sub:1"))),
        owners=choose((("ada",), ("ada",), ("ada",), ("ada", "ada", "bob"))),
        weights={
            "run": 8,
            "get_tuple": 1,
            "list": 1,
            "delete_thread": maintains * choose((0, 0.5)),
            "prune": prunes,
            "delete_for_runs": maintains * choose((0, 0.5)),
            "copy_thread": maintains * choose((0, 0.5)),
        },
        travels=choose((0, 0, 0.2)),
        resumes=choose((0, 0.3)),
        overtakes=choose((0, 0.3)),
        restarts=0 if is_pruned else choose((0, 0.3)),
    )
    has_faults = random.random() < 0.7
    environment = Environment(
        clients=choose((1, 2, 2, 3)),
        operations=choose((3, 5, 8)),
        shared_process=choose((0, 0, 0.5)),
        same_client=choose((0, 0.5, 0.8, 0.95)),
        call_failure=choose((0.02, 0.1, 0.25)) if has_faults else 0,
        late_call=choose((0, 1)),
        crash=choose((0, 0.1, 0.4)),
        partial_batch=choose((0, 0.3)),
        call_durations=choose(((1,), (1, 5, 40))),
        short_jump=choose((0, 0, 0.02)),
        long_jump=0.15 if expires else choose((0, 0, 0.06)),
        long_jump_durations=choose(((2 * HOUR,), (26 * HOUR, 60 * HOUR, 5 * DAY))),
        jump_to_expiry=choose((0, 0.4)),
        ttl_deletion=0.5 if expires else choose((0, 0.1, 0.3)),
        clock_skews=choose(((0,), (0,), (0, 7, 2_000), (-600_000, 0, 600_000))),
        sleep=choose((0, 0, 0.02)),
        patience=choose((0.1, 0.5, 20.0)),
        page_items=choose((None, None, 2)),
        default_lifetimes=(10 * 60 * SECOND if expires else lifetime,),
        cleanup_seconds=choose(((2.0,), (0.0, 2.0))),
    )
    rivals = choose(("fork", "refuse"))
    return SaverScheduler(random, workload, environment, rivals=rivals, trace=trace)


def run_schedule(seed: int) -> None:
    """Run one schedule.

    Raises:
        Violation: Something is wrong; the text ends with the seed.
    """
    with small_limits():
        try:
            _run(draw_schedule(seed))
        except Violation as violation:
            raise Violation(f"{violation} (seed {seed})") from violation


def trace_schedule(seed: int) -> str:
    """Return the trace of a schedule, with what is wrong at its end."""
    with small_limits():
        scheduler = draw_schedule(seed, trace=True)
        try:
            _run(scheduler)
            end = "nothing is wrong"
        except Violation as violation:
            end = str(violation)
    assert scheduler.state.trace is not None
    return "\n".join([*scheduler.state.trace, end])


def _run(scheduler: SaverScheduler) -> None:
    scheduler.run()
    scheduler.check_end()
