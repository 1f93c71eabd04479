"""Benchmarks of Chatledger against hand-written code that does the same: ``python -m benchmarks``.

To add one, write a function in a module that ``__main__`` imports, and decorate it with
``measurement.benchmark``. It gets an empty folder, and yields the figures to measure.
"""
