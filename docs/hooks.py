"""Pages of the site that live outside ``docs/``: shown from where they are, so that each has one home."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
OUTSIDE = {"CONTRIBUTING.md": "CONTRIBUTING.md", "CONFIGS.md": "configs/README.md"}


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
    """Docstrings' roles (``:func:`` and its like) are left out: the name in its code font says enough."""
    return re.sub(r":(?:attr|class|data|func|meth|mod):(?=<code>)", "", html)
