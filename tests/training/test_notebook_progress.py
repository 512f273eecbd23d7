"""Progress in a notebook: one element that is updated in place, shown by IPython."""

import html
import re
import sys
import types

import pytest
import torch

import pushforward as pf
from pushforward.errors import TrainingError
from pushforward.training.progress import NotebookBar, PlainLines, in_notebook, make_reporter


@pytest.fixture
def notebook(monkeypatch):
    """A stand-in for IPython with a kernel; returns what it shows: one list of pages for each display."""
    shown = []

    class Handle:
        def __init__(self):
            self.pages = []
            shown.append(self.pages)

        def update(self, page):
            self.pages.append(page.data)

    class HTML:
        def __init__(self, data):
            self.data = data

    root, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    root.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    display.HTML, display.display = HTML, lambda page, display_id: Handle()
    monkeypatch.setitem(sys.modules, "IPython", root)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


def test_a_terminal_is_no_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
    assert isinstance(make_reporter("auto"), PlainLines)
    shell = types.ModuleType("IPython")
    shell.get_ipython = lambda: types.SimpleNamespace()  # IPython on a terminal has no kernel
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert not in_notebook()


def test_one_element_with_the_numbers_of_the_result(notebook, capsys):
    assert isinstance(make_reporter("auto"), NotebookBar)
    notebook.clear()
    result = pf.fit(pf.models.NICE(2), torch.randn(200, 2), max_steps=30, evaluate_every=10, seed=0)
    assert capsys.readouterr() == ("", "")
    assert len(notebook) == 1
    pages = notebook[0]
    assert "step 0/30" in pages[0]
    assert html.escape(repr(result)) in pages[-1]
    values = [float(re.search(r'value="([\d.]+)"', page)[1]) for page in pages]
    assert values == sorted(values)
    assert values[-1] == 1


def test_it_says_that_training_stopped(notebook):
    def broken(event):
        raise TrainingError("no")

    with pytest.raises(TrainingError):
        pf.fit(pf.models.NICE(2), torch.randn(200, 2), max_steps=30, evaluate_every=10, seed=0, callback=broken)
    assert "stopped" in notebook[0][-1]
