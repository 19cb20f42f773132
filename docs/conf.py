"""How Sphinx builds the documentation: ``make docs`` writes it to docs/_build/html."""

import gelkit

project = "gelkit"
author = "The gelkit developers"
version = release = gelkit.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"gelkit {version}"
html_static_path = ["_static"]
html_css_files = ["gelkit.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 88

nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(collections|keras|np|npt|numpy|os|pandas|pathlib|pd|sklearn|torch)\..*"),
    ("py:.*", r"contextlib\..*"),
    ("py:class", r"Path|TensorDataset|optional|gelkit\.analyses\.orientations\.Value"),
    ("py:class", r"gelkit\.features\.shards\.OpenShard"),
    ("py:class", r"nn\.Module"),
    ("py:(data|func)", r"[\w]+"),
]
"""Other packages' names, whose pages would have to be fetched to be linked, and names that
docstrings take from their own module, which here are those of gelkit itself."""
