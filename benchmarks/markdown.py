"""Tables of the results."""

from collections.abc import Sequence


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column says what it is about; the others are figures, set to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    rule = [f"{'-' * (width + 1)}{':' if n else '-'}" for n, width in enumerate(widths)]
    return "\n".join(
        [_line(headings, widths), f"|{'|'.join(rule)}|"] + [_line(row, widths) for row in rows]
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    set_right = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
    return f"| {' | '.join([f'{cells[0]:{widths[0]}}', *set_right[1:]])} |"
