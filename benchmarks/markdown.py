"""Markdown tables of the results."""

from collections.abc import Sequence


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column has names, and whose other columns are right-aligned."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    rule = [f"{'-' * (width + 1)}{':' if n else '-'}" for n, width in enumerate(widths)]
    return "\n".join(
        [_line(headings, widths), f"|{'|'.join(rule)}|"] + [_line(row, widths) for row in rows]
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    right_aligned = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
    return f"| {' | '.join([f'{cells[0]:{widths[0]}}', *right_aligned[1:]])} |"
