"""What Chatledger costs against the same work done by hand: ``python -m benchmarks``.

Another benchmark is one function: decorated with ``measuring.benchmark``, in a module that
``__main__`` imports, it gets an empty folder and yields the ratios to be measured.
"""
