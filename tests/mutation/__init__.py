"""Mutation testing: change one operator, constant or statement of a source file at a time, and see whether a test fails.

    python -m tests.mutation trace --data contexts            # which tests reach which lines: one run of the whole suite
    python -m tests.mutation run --data contexts --results mutants.jsonl     # or continue a run that was stopped
    python -m tests.mutation report --results mutants.jsonl   # the table of a run

A mutant that no test notices shows a missing check, or a change without effect. Mutants are tried in copies of the project,
so the working tree is never changed. ``--root`` names another checkout, for example of an earlier version.
"""
