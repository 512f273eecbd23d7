# `make demo` and `make test` make their own environment in .venv; PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-slow check docs docs-quick docs-serve release-check sbom lowest clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' Makefile

.venv/.installed: pyproject.toml setup.py $(wildcard src/pushforward/kernels/*.[ch])
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'pushforward needs Python 3.11 or newer; set PYTHON=...')"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,dev]'
	touch $@

demo: .venv/.installed  ## a guard around a network on real images; writes demo/pushforward-demo.png
	$(BIN)/pushforward demo --output demo/pushforward-demo.png

# One thread each, because threads of two workers would wait for each other; the third worker is for tests that wait.
test test-slow: export OMP_NUM_THREADS = 1

test: .venv/.installed  ## the tests that take seconds each, and the examples in docstrings
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow" --durations=15 tests
	$(BIN)/python -m pytest --doctest-modules --pyargs pushforward -p no:cacheprovider

test-slow: .venv/.installed  ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow tests

check: .venv/.installed  ## formatting, lint, types, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell .
	$(BIN)/pyright

# Warnings are errors. PUSHFORWARD_DOCS_ONLINE=1 also links to the pages of torch, numpy, scikit-learn and Pyro, and
# PUSHFORWARD_DOCS_REPOSITORY=OWNER/NAME runs the examples on Binder.
SPHINX = $(BIN)/sphinx-build -W --keep-going -q -j auto

docs: .venv/.installed  ## the documentation with the gallery, in docs/_build/html; offline
	$(SPHINX) -b html docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

docs-quick: .venv/.installed  ## the documentation without running the gallery
	$(SPHINX) -b html -D plot_gallery=0 docs docs/_build/quick
	$(BIN)/python docs/check_links.py docs/_build/quick

docs-serve: docs  ## show the documentation on http://localhost:8080
	$(BIN)/python -m http.server 8080 --bind 127.0.0.1 --directory docs/_build/html

release-check: .venv/.installed  ## build the wheel, install it in a new environment, run the README's code with it
	$(BIN)/python -m pytest -m slow tests/docs/test_release.py

sbom: .venv/.installed  ## what the package needs and contains, with licenses: dist/pushforward-sbom.cdx.json
	$(BIN)/python release/sbom.py -o dist/pushforward-sbom.cdx.json

# PyTorch is the newest that pip finds: its lowest version is a download of gigabytes. TESTS chooses what runs.
TESTS ?= tests/io tests/data tests/cli tests/estimators tests/detection tests/plot tests/report
lowest: export OMP_NUM_THREADS = 1

lowest:  ## tests with the lowest versions of the dependencies, in .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) release/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet -e '.[serve]' -c .venv-lowest/constraints.txt pandas polars pytest hypothesis
	.venv-lowest/bin/python -m pytest -m "not slow" -p no:cacheprovider $(TESTS)

clean:  ## remove the environment and what was built
	rm -rf .venv .venv-lowest demo build dist docs/_build docs/gallery src/pushforward/kernels/*.so
