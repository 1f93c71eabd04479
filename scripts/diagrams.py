"""Draws the diagrams of docs/architecture.md: ``python scripts/diagrams.py [FOLDER]``.

It writes SVG files to FOLDER, by default docs/diagrams. The site shows them without loading
anything from another server, which diagrams in Markdown would need. A test compares the files with
what this script draws.
"""

import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parents[1]
WIDTH = 740
"""The width of every diagram in pixels: about that of the column of text on the site."""

INK, MUTED, LINE = "#1f2933", "#52606d", "#9aa5b1"
BLUE, GREEN, AMBER, PURPLE, RED, GRAY = (
    ("#dbeafe", "#2563eb"),
    ("#dcfce7", "#15803d"),
    ("#fef3c7", "#b45309"),
    ("#ede9fe", "#6d28d9"),
    ("#fee2e2", "#b91c1c"),
    ("#f1f3f5", "#7b8794"),
)
Colors = tuple[str, str]
"""A fill and a stroke."""

JOBS: Final = {
    "cli": "the command chatledger",
    "testing": "tools for tests: the contract suite, fake servers",
    "http": "the HTTP API, sign-in and the web page",
    "settings": "settings from CHATLEDGER_* variables",
    "langchain": "LangChain chat message histories",
    "langgraph": "LangGraph's checkpoints on a store",
    "chat": "turns: save the question, stream the reply, save it",
    "copying": "copies from stores and other tables to a store",
    "models": "language models, opened by name",
    "windows": "the part of a conversation that a model sees",
    "sansio": "runs generators that perform no I/O themselves",
    "langchain_messages": "conversion of LangChain's messages",
    "stores": "the contract of all stores; SQLite and DynamoDB",
    "conversations": "conversations and the other values that stores return",
    "entries": "named values beside the messages",
    "messages": "messages",
    "tool_calls": "tool calls and their results, from all known formats",
    "values": "JSON values, ids and times, in the form that stores keep",
    "errors": "all errors",
    "backoff": "waits of retry loops",
    "aws": "AWS configuration, signatures and HTTP",
    "extras": "how to install what is missing",
}
"""The job of each top-level package and module."""


class Drawing:
    """An SVG image that grows downward."""

    def __init__(self, width: int, title: str) -> None:
        self.width = width
        self.height = 0.0
        self._title = title
        self._shapes: list[str] = []

    def rectangle(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colors: Colors,
        *,
        dashed: bool = False,
        radius: int = 4,
    ) -> None:
        fill, stroke = colors
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self._shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" '
            f'fill="{fill}" stroke="{stroke}"{dash}/>'
        )
        self.height = max(self.height, y + height)

    def line(
        self,
        points: Sequence[tuple[float, float]],
        *,
        color: str = INK,
        dashed: bool = False,
        arrow: bool = False,
    ) -> None:
        path = " L ".join(f"{x:g} {y:g}" for x, y in points)
        self._path(f"M {path}", color, dashed=dashed, arrow=arrow)
        self.height = max(self.height, *(y for _, y in points))

    def arc(self, start: float, end: float, y: float, rise: float) -> None:
        """Draw an arrow from ``start`` to ``end`` that rises above ``y``."""
        top = y - rise * 4 / 3
        path = f"M {start:g} {y:g} C {start:g} {top:g} {end:g} {top:g} {end:g} {y:g}"
        self._path(path, MUTED, arrow=True)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 12,
        anchor: str = "start",
        color: str = INK,
        bold: bool = False,
        code: bool = False,
    ) -> None:
        style = ' font-weight="bold"' if bold else ""
        style += ' font-family="monospace"' if code else ""
        self._shapes.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" '
            f'fill="{color}"{style}>{escape(text)}</text>'
        )
        self.height = max(self.height, y + 4)

    @contextmanager
    def behind(self) -> Iterator[None]:
        """Draw what is drawn within this context behind everything else."""
        shapes, self._shapes = self._shapes, []
        yield
        self._shapes += shapes

    def _path(self, path: str, color: str, *, dashed: bool = False, arrow: bool = False) -> None:
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        end = ' marker-end="url(#arrow)"' if arrow else ""
        self._shapes.append(f'<path d="{path}" fill="none" stroke="{color}"{dash}{end}/>')

    def svg(self) -> str:
        width, height = self.width, f"{self.height + 16:g}"
        return _SVG.format(
            width=width,
            height=height,
            title=escape(self._title),
            ink=INK,
            shapes="\n".join(self._shapes),
        )


# The first rectangle is a light background, which the page may not have.
_SVG: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}" role="img" font-family="system-ui, Helvetica, Arial, sans-serif">
<title>{title}</title>
<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" \
orient="auto"><path d="M 0 0 L 8 4 L 0 8 z" fill="{ink}"/></marker></defs>
<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>
{shapes}
</svg>
"""


def wrap(text: str, width: float, size: int = 12) -> list[str]:
    """Split the text into lines of about ``width`` pixels at most."""
    most = int(width / (size * 0.54))
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if len(longer) > most and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


# Packages -----------------------------------------------------------------------------------------


def layers() -> list[list[str]]:
    """Return the layers of packages and modules, the highest first, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (found,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip()[len("chatledger.") :] for name in re.split("[|:]", row)] for row in found]


def draw_packages() -> Drawing:
    drawing = Drawing(WIDTH, "The packages in layers: imports go only downward")
    y, gap, height = 12.0, 6, 56
    for row in layers():
        width = (WIDTH - 24 - gap * (len(row) - 1)) / len(row)
        for n, name in enumerate(row):
            x = 12 + n * (width + gap)
            drawing.rectangle(x, y, width, height, BLUE)
            center = x + width / 2
            drawing.text(center, y + 20, name, size=13, anchor="middle", bold=True)
            for k, line in enumerate(wrap(JOBS[name], width - 12, 11)):
                drawing.text(center, y + 36 + 14 * k, line, size=11, anchor="middle", color=MUTED)
        y += height + gap
    return drawing


# The log ------------------------------------------------------------------------------------------


def draw_log() -> Drawing:
    drawing = Drawing(WIDTH, "A conversation's log: records on a number line, and the other items")
    left, cell, top = 16, 66, 118
    next_position = ("#ffffff", LINE)

    def edge(position: int) -> float:
        return left + (position - 1) * cell

    def middle(position: int) -> float:
        return edge(position) + cell / 2

    def caption(x: float, y: float, *lines: str) -> None:
        for n, line in enumerate(lines):
            drawing.text(x, y + 15 * n, line, size=11, color=MUTED)

    def box(x: float, y: float, width: float, colors: Colors, sort: str, *lines: str) -> None:
        drawing.rectangle(x, y, width, 23 + 16 * len(lines), colors)
        drawing.text(x + 8, y + 16, sort, size=11, bold=True, code=True)
        for n, line in enumerate(lines):
            drawing.text(x + 8, y + 32 + 16 * n, line, size=11)

    def record(position: int, width: int, *lines: str, colors: Colors = BLUE) -> None:
        dashed = colors in (GRAY, next_position)
        drawing.rectangle(edge(position) + 2, top, width * cell - 4, 60, colors, dashed=dashed)
        center = edge(position) + width * cell / 2
        for n, line in enumerate(lines):
            name = line.startswith("m#")
            drawing.text(
                center, top + 17 + 17 * n, line, anchor="middle", size=11, bold=name, code=name
            )

    caption(
        left,
        22,
        "Each record names the seq of the message before it. A reader starts at the last record "
        "and follows these.",
    )
    caption(left, 74, "position")
    for position in range(1, 10):
        drawing.text(middle(position), 92, str(position), anchor="middle")
        drawing.line([(edge(position), 98), (edge(position), 108)], color=LINE)
    drawing.line([(edge(1), 103), (edge(10), 103)], color=LINE)
    drawing.arc(middle(8), middle(5) + 8, 78, 36)
    drawing.arc(middle(5) - 8, middle(4) + 8, 78, 16)

    record(1, 1, "m#1", "create", "no seq")
    record(2, 3, "m#2", "append, width 3", "seq 2, seq 3, seq 4")
    record(5, 1, "m#5", "append", "seq 5")
    record(6, 1, "m#6", "tombstone", colors=GRAY)
    record(7, 1, "m#7", "truncate", "no seq")
    record(8, 1, "m#8", "append", "seq 8")
    record(9, 1, "", "the next", "position", colors=next_position)

    below = top + 130
    drawing.line([(middle(3), top + 60), (middle(3), below)], arrow=True)
    caption(middle(3) + 8, top + 86, "the token of", "its body parts")
    box(edge(2), below, 178, GREEN, "b#<token>#00000000#000", "chunk: its messages 0 and 1")
    box(edge(2), below + 46, 178, GREEN, "b#<token>#00000002#000", "chunk: its message 2")
    caption(edge(2), below + 104, "Body parts, if the body is long.")

    drawing.line([(middle(5), below), (middle(5), top + 60)], arrow=True)
    box(edge(5) - 8, below, 164, AMBER, "k#<idempotency key>", "position 5, 1 message")
    caption(edge(5) - 8, below + 58, "What a retry gets, for a day.")

    drawing.line([(middle(6), top + 60), (middle(6), top + 82)], color=LINE)
    caption(middle(6) - 10, top + 96, "Seq 6 was removed by m#7,", "and its position stays taken.")

    head = edge(10) + 8
    box(head, top, WIDTH - 16 - head, PURPLE, "~head", "title, owner,", "revision 8,", "5 messages")
    caption(head, top + 92, "What lists read;", "updated after", "the log.")
    caption(
        left,
        below + 134,
        "All items have the partition key c#<conversation id>. Records and the head sort last, so "
        "that one query reads both.",
    )
    return drawing


# Sequences ----------------------------------------------------------------------------------------


_EDGE = 78
"""The distance of the first and the last participant from the edge of a sequence diagram."""
_HALF = 66
"""Half the width of a participant."""


class SequenceDiagram:
    """A sequence diagram: participants side by side, time downward."""

    def __init__(self, title: str, *participants: tuple[str, str]) -> None:
        self.drawing = Drawing(WIDTH, title)
        columns = (WIDTH - 2 * _EDGE) / (len(participants) - 1)
        self._x = {name: _EDGE + n * columns for n, (name, _) in enumerate(participants)}
        self._y = 66.0
        for name, job in participants:
            x = self._x[name]
            self.drawing.rectangle(x - _HALF, 12, 2 * _HALF, 42, BLUE)
            self.drawing.text(x, 29, name, anchor="middle", bold=True, size=13)
            self.drawing.text(x, 46, job, anchor="middle", size=11, color=MUTED)

    def call(self, sender: str, receiver: str, text: str, *, reply: bool = False) -> None:
        start, end = self._x[sender], self._x[receiver]
        left, right = sorted((start, end))
        nearest = min(abs(x - left) for x in self._x.values() if x > left)
        lines = wrap(text, max(right - left, nearest) - 12)
        for line in lines:
            self._y += 15
            self.drawing.text((left + right) / 2, self._y, line, anchor="middle")
        self._y += 6
        gap = 2 if end > start else -2
        self.drawing.line([(start + gap, self._y), (end - gap, self._y)], dashed=reply, arrow=True)
        self._y += 8

    def note(self, first: str, last: str, text: str, colors: Colors = GRAY) -> None:
        left, right = self._x[first] - _HALF, self._x[last] + _HALF
        lines = wrap(text, right - left - 20)
        self._y += 8
        self.drawing.rectangle(left, self._y, right - left, 15 * len(lines) + 12, colors)
        for n, line in enumerate(lines):
            self.drawing.text(left + 10, self._y + 18 + 15 * n, line)
        self._y += 15 * len(lines) + 20

    def repeat(self, text: str, steps: Callable[[], None]) -> None:
        """Draw ``steps`` in a frame."""
        self._y += 8
        top = self._y
        self.drawing.text(14, top + 17, f"repeat: {text}", bold=True, color=MUTED)
        self._y += 22
        steps()
        self.drawing.rectangle(6, top, WIDTH - 12, self._y - top + 4, ("none", LINE), dashed=True)
        self._y += 12

    def finish(self) -> Drawing:
        """Draw the participants' lifelines behind everything else."""
        with self.drawing.behind():
            for x in self._x.values():
                self.drawing.line([(x, 54), (x, self._y + 4)], color=LINE, dashed=True)
        return self.drawing


def draw_turn() -> Drawing:
    turn = SequenceDiagram(
        "A turn: who asks what of whom, and what holds if it breaks",
        ("browser", "or any client"),
        ("http", "the API"),
        ("chat", "the turn"),
        ("store", "SQLite, DynamoDB"),
        ("model", "Bedrock, LangChain"),
    )
    turn.call("browser", "http", "POST /chat/stream")
    turn.note("http", "http", "checks host, sign-in and body")
    turn.call("http", "chat", "Chat.stream(…)")
    turn.call("chat", "store", "tail: read the last messages")
    turn.call("store", "chat", "conversation and messages", reply=True)
    turn.note(
        "browser",
        "chat",
        "If the lease of another turn has not ended: TurnInProgress, response 409. Nothing was "
        "stored.",
        RED,
    )
    turn.call("chat", "model", "stream(window): called while the question is being stored")
    turn.call("chat", "store", "append: the question with its lease, revision=...")
    turn.call("store", "chat", "revision", reply=True)
    turn.note(
        "browser",
        "chat",
        "If a rival was first (Conflict), the turn reads again and decides anew. If the store "
        "fails: nothing is stored, or the question if only the response was lost.",
        RED,
    )
    turn.call("chat", "http", "Started", reply=True)
    turn.call("http", "browser", "event: start", reply=True)
    turn.note("browser", "http", "From here on the user's message is safe.", GREEN)

    def stream() -> None:
        turn.call("model", "chat", "piece", reply=True)
        turn.call("chat", "http", "piece", reply=True)
        turn.call("http", "browser", "event: piece", reply=True)
        turn.call("chat", "store", "each third of a lease, replace: extend the lease")
        turn.note(
            "browser",
            "chat",
            "If the model fails, the client goes away, or the turn is stopped or takes too long: "
            "the pieces so far are stored as the reply, with a stop_reason. If the process dies: "
            "the question is stored, and the next turn can start when the lease ends.",
            RED,
        )

    turn.repeat("until the model has finished", stream)
    turn.call("model", "chat", "Finished", reply=True)
    turn.call("chat", "store", "append: the reply, which ends the lease, revision=...")
    turn.call("store", "chat", "revision", reply=True)
    turn.note(
        "browser",
        "chat",
        "If the store fails: the question is stored, and the reply too if only the response was "
        "lost. The next turn can start when the lease ends. If other writers were first: the reply "
        "is stored after their messages.",
        RED,
    )
    turn.call("chat", "http", "Finished", reply=True)
    turn.call("http", "browser", "event: done", reply=True)
    turn.note("browser", "http", "The reply is stored too.", GREEN)
    return turn.finish()


def draw_append() -> Drawing:
    append = SequenceDiagram(
        "An append that meets a rival",
        ("writer A", "append"),
        ("DynamoDB", "one table"),
        ("writer B", "append"),
    )
    append.note(
        "writer A",
        "writer B",
        "Both writers know the log end, cached or read: the revision is 8. Both aim at position 9.",
    )
    append.call("writer A", "DynamoDB", "PutItem m#9, if the position is free")
    append.call("writer B", "DynamoDB", "PutItem m#9, if the position is free")
    append.call("DynamoDB", "writer A", "done: A's messages can be read", reply=True)
    append.call("DynamoDB", "writer B", "condition failed; here is A's record m#9", reply=True)
    append.note(
        "DynamoDB",
        "writer B",
        "The record has another write token, so B has lost the race. If the token were its own, "
        "an earlier attempt of B would have landed, and B would be done.",
    )
    append.note(
        "DynamoDB",
        "writer B",
        "With revision=8, B now reads the log end and raises Conflict; nothing was written. "
        "Without it, A's record is the log end that B continues after, and no read is needed.",
        RED,
    )
    append.call("writer B", "DynamoDB", "PutItem m#10, if the position is free")
    append.call("DynamoDB", "writer B", "done: B's messages follow A's", reply=True)
    append.call("writer B", "DynamoDB", "UpdateItem ~head: revision 10, if lower")
    append.call("DynamoDB", "writer B", "done", reply=True)
    append.call("writer A", "DynamoDB", "UpdateItem ~head: revision 9, if lower")
    append.call("DynamoDB", "writer A", "condition failed: it says more already", reply=True)
    append.note(
        "writer A",
        "writer B",
        "A writer that loses again backs off, longer each time, and reads the log end after each "
        "third loss. After 60 seconds of lost races it raises StoreUnavailable; nothing was "
        "written.",
    )
    return append.finish()


DIAGRAMS: Final[dict[str, Callable[[], Drawing]]] = {
    "packages": draw_packages,
    "log": draw_log,
    "turn": draw_turn,
    "append": draw_append,
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in DIAGRAMS.items():
        (folder / f"{name}.svg").write_text(draw().svg(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "diagrams")
