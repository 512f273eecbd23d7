"""Sphinx configuration. `make docs` builds offline.

PUSHFORWARD_DOCS_ONLINE=1 also links to the pages of torch and others. PUSHFORWARD_DOCS_REPOSITORY=OWNER/NAME, a public
repository that has this code, gives each example of the gallery a link that runs it in the browser, on Binder.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "src"), str(HERE.parent)]

# Small models are fastest on one thread, and threads of several examples would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pushforward
from gallery import SECTIONS

project = "pushforward"
author = "The pushforward authors"
copyright = author
release = version = pushforward.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "api",  # the list of public names on each page of the reference
    "references",  # the works that docstrings cite
    "mathml",  # formulas
    "llms",  # llms.txt and llms-full.txt
]
exclude_patterns = ["_build", "papers/*.json", "gallery/**/*.ipynb", "gallery/**/*.zip"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has them in the source; the docstring says what they mean
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes are documented once, by the class
napoleon_custom_sections = [("Shape", "params_style")]
copybutton_exclude = ".linenos, .gp, .go"

online = os.environ.get("PUSHFORWARD_DOCS_ONLINE") == "1"
intersphinx_mapping = {
    "torch": ("https://docs.pytorch.org/docs/stable/", None),
    "numpy": ("https://numpy.org/doc/stable/", None),
    "sklearn": ("https://scikit-learn.org/stable/", None),
    "pyro": ("https://docs.pyro.ai/en/stable/", None),
} if online else {}  # fmt: skip

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "subsection_order": [f"../examples/{name}" for name in SECTIONS],
    "within_subsection_order": "gallery.Order",
    "filename_pattern": r"plot_",
    "ignore_pattern": r"(__init__|inference_).*\.py$",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,  # its page asks other hosts for scripts
    "default_thumb_file": str(HERE / "demo.png"),
    "abort_on_example_error": True,
}

repository = os.environ.get("PUSHFORWARD_DOCS_REPOSITORY", "")
if repository:
    owner, _, name = repository.partition("/")
    sphinx_gallery_conf["binder"] = {
        "org": owner,
        "repo": name,
        "branch": f"v{release}",
        "binderhub_url": "https://mybinder.org",
        "dependencies": str(HERE / "binder" / "requirements.txt"),
        "use_jupyter_lab": True,
    }

html_theme = "furo"
html_math_renderer = "mathml"
pygments_dark_style = "github-dark"
html_title = "pushforward"
html_static_path = ["_static"]
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_theme_options = {"sidebar_hide_name": False}
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
