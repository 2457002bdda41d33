"""Self-contained HTML pages: templates, and figures as PNG bytes."""

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffpath_jax.io.files import write_text

COLOURS = ("#3b4cc0", "#b40426", "#2a9d55", "#e69f00", "#7b3294")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches."""
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes, title: str, *, x: str) -> None:
    """Small letters, and lines where they are needed."""
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def png_of(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def write_page(path: Path, template: str, **content: Any) -> None:
    """Fill a template of this package and write it; PNG bytes become part of the page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("diffpath_jax.render"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["png"] = lambda data: f"data:image/png;base64,{base64.b64encode(data).decode()}"
    write_text(path, environment.get_template(template).render(**content))
