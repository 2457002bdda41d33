"""Results of ``diffpath membership`` as CSV files, as lines of text, and as one page."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from diffpath_jax.evaluation.membership import Scored, Sources
from diffpath_jax.evaluation.membership_record import MembershipRecord
from diffpath_jax.evaluation.record import Number, as_json
from diffpath_jax.io.csv_text import csv_text
from diffpath_jax.io.files import write_text
from diffpath_jax.metrics import roc
from diffpath_jax.render import html

TABLE, SCORES, PAGE = "membership.csv", "scores.csv", "index.html"
COLUMNS = ("score", "metric", "value", "low", "high", "p")
# Rates of the figure start here, below which no set of patches has a say.
LEAST_RATE = 1e-3
BINS = 40
_METRICS = {"area": "AUC", "true_positives": "true positive rate", "area_by_patient": "AUC by patient"}


def rows(record: MembershipRecord) -> Iterator[tuple[str, str, Number, float | None]]:
    """Yields (score, metric, number, chance without leakage) of all that was measured."""
    for name, attack in record.attacks.items():
        numbers = {part: getattr(attack, part) for part in _METRICS}
        for part, number in numbers.items():
            if number:
                yield name, _METRICS[part], number, attack.p_values[part]
    for level in record.levels:
        name = f"denoising loss at t = {level.timestep}"
        yield name, "AUC", level.area, None
        yield name, "held-out less training loss", level.gap, None
    for space in record.nearer:
        yield space.name, "from held-out less from training images", space.difference, None


def write_csv(path: Path, record: MembershipRecord) -> None:
    """Writes every number with its interval, one a line."""
    lines = (
        (name, metric, number.value, number.low, number.high, chance) for name, metric, number, chance in rows(record)
    )
    write_text(path, csv_text(COLUMNS, (dict(zip(COLUMNS, line, strict=True)) for line in lines)))


def write_scores(path: Path, sources: Sources, scored: Scored) -> None:
    """Writes the losses and scores of every image, one a line."""
    levels = [f"loss_t{timestep}" for timestep in scored.levels.timesteps]
    about = [
        (name, side.images.split, number, side.images.classes[label], patient)
        for name, side in (("member", sources.members), ("non-member", sources.non_members))
        for number, label, patient in zip(side.numbers, side.images.labels, side.images.patients, strict=True)
    ]
    numbers = np.column_stack([scored.losses, *scored.scores.values()])
    columns = ("side", "split", "number", "class", "patient", *levels, *scored.scores)
    lines = ([*words, *values] for words, values in zip(about, numbers.tolist(), strict=True))
    write_text(path, csv_text(columns, (dict(zip(columns, line, strict=True)) for line in lines)))


def lines(record: MembershipRecord) -> Iterator[str]:
    """Yields the result in a few lines."""
    for name, metric, number, chance in rows(record):
        if chance is not None:
            yield f"{name}: {metric} {_interval(number)}, p {chance:.3g}"
    for name, reason in record.skipped.items():
        yield f"{name}: none, {reason}"
    for space in record.nearer:
        numbers = f"{space.to_members:.2f} from training, {space.to_non_members:.2f} from held-out images"
        yield f"{space.name}: {numbers}: {space.words}"
    yield record.verdict


def _interval(number: Number) -> str:
    ends = "" if number.low is None or number.high is None else f" [{number.low:.3f}, {number.high:.3f}]"
    return f"{number.value:.3f}{ends}"


def write_page(path: Path, record: MembershipRecord, scored: Scored) -> None:
    """Writes the page."""
    content = as_json(record)
    html.write_page(
        path,
        "membership.html",
        record=record,
        rows=[
            (name, metric, _interval(number), f"{chance:.3g}")
            for name, metric, number, chance in rows(record)
            if chance is not None
        ],
        levels=[(level, _interval(level.gap), _interval(level.area)) for level in record.levels],
        nearer=[(space, _interval(space.difference)) for space in record.nearer],
        figure=_figure(scored),
        settings=[
            (title, json.dumps(content[title], indent=2)) for title in ("config", "model", "sources", "versions")
        ],
    )


def _figure(scored: Scored) -> bytes:
    """Returns the scores of members and non-members, and what each score tells of them, on logarithmic axes."""
    names = list(scored.scores)
    figure = html.new_figure(4.0 * len(names) + 4.5, 3.6)
    *panels, last = figure.subplots(1, len(names) + 1, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        _draw_scores(axes, scored.scores[name], scored.images.member)
        html.tidy(axes, name, x="score (larger: more like a training image)")
    _draw_curves(last, scored.scores, scored.images.member)
    html.tidy(last, "members told, by the false alarms that are allowed", x="share of held-out images")
    return html.png_of(figure)


def _draw_scores(axes: Axes, scores: np.ndarray, member: np.ndarray) -> None:
    low, high = np.quantile(scores, [0.001, 0.999])
    edges = np.linspace(low, high, BINS)
    if not np.all(np.diff(edges) > 0):
        edges = np.linspace(scores[0] - 1, scores[0] + 1, BINS)
    for own, label, colour in ((member, "training", html.COLOURS[1]), (~member, "held out", html.COLOURS[0])):
        shares = np.full(own.sum(), 1 / own.sum())
        inside = np.clip(scores[own], edges[0], edges[-1])
        axes.hist(inside, edges.tolist(), weights=shares, histtype="step", color=colour, label=label)
    axes.legend(fontsize=8, frameon=False)


def _draw_curves(axes: Axes, scores: Mapping[str, np.ndarray], member: np.ndarray) -> None:
    for (name, own), colour in zip(scores.items(), html.COLOURS * len(scores), strict=False):
        false, true = roc.curve(own, member)
        axes.step(np.maximum(false, LEAST_RATE), np.maximum(true, LEAST_RATE), where="post", color=colour, label=name)
    axes.plot([LEAST_RATE, 1], [LEAST_RATE, 1], color="#9a95a5", linewidth=0.8, linestyle="--", label="chance")
    axes.set(xscale="log", yscale="log", xlim=(LEAST_RATE, 1), ylim=(LEAST_RATE, 1.05))
    axes.set_ylabel("share of training images", fontsize=8)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
