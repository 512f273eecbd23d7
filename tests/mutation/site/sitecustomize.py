"""Measures the lines of a process that a traced test starts; `contexts.py` puts this folder on its path."""

import atexit
import os

if os.environ.get("MUTATION_CONTEXT"):
    import coverage

    _measured = coverage.Coverage(
        data_file=os.environ["MUTATION_DATA"], data_suffix=True, source=[os.environ["MUTATION_SOURCE"]],
        context=os.environ["MUTATION_CONTEXT"], config_file=False,
    )  # fmt: skip
    _measured.start()
    atexit.register(_measured.save)
    atexit.register(_measured.stop)
