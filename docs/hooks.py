"""Pages of the site that live outside ``docs/``: shown from where they are, so that each has one home."""

import re
from html import unescape
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
OUTSIDE = {"CONTRIBUTING.md": "CONTRIBUTING.md", "CONFIGS.md": "configs/README.md"}
# As pymdownx.arithmatex leaves them.
EQUATION = re.compile(r"\\(?P<open>[(\[])(?P<latex>[^<]*?)\\[)\]](?=</(?:span|div)>)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from outside to those of ``docs/``."""
    for page, source in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that are right in the repository, made right in the site."""
    for name, source in OUTSIDE.items():
        markdown = markdown.replace(f"](../{source}", f"]({name}")
    return re.sub(r"\]\((?:\.\./)?docs/", "](", markdown) if page.file.src_uri in OUTSIDE else markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Docstrings' roles (``:func:`` and its like) are left out: the name in its code font says enough.

    Equations become MathML, which browsers show without a script or a font from elsewhere.
    """
    html = re.sub(r":(?:attr|class|data|func|meth|mod):(?=<code>)", "", html)
    return EQUATION.sub(_mathml, html)


def _mathml(equation: re.Match[str]) -> str:
    display = "inline" if equation["open"] == "(" else "block"
    return convert(unescape(equation["latex"]).strip(), display=display)
