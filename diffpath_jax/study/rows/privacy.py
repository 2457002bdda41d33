"""Rows on privacy of the training patients: copies, and membership."""

from collections.abc import Mapping, Sequence
from typing import Any

from diffpath_jax.evaluation.membership_record import MEMBERSHIP
from diffpath_jax.evaluation.record import METRICS, SkippedAudit
from diffpath_jax.study.results import Results
from diffpath_jax.study.row import NEW, Row
from diffpath_jax.study.rows import sets
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import StudySteps
from diffpath_jax.study.table import Cell, Section, Table, TableRow


def membership(study: StudySteps) -> Step:
    """Returns the search for signs of membership, of the first model and of the images that it made."""
    each = sets.first_set(study)
    data, model = study.dataset(each.dataset), study.model(each.dataset, each.model)
    words = ["membership", "--workdir", str(model.out), "--data", str(data.out), "--generated", str(each.samples.out)]
    words += ["--features", *study.features(each.dataset), "--images", str(study.config.held_out)]
    words += ["--seed", str(study.config.seed), *study.feature_cache]
    needs = [data, model, each.samples, study.classifier_of_all(each.dataset)]
    return study.command(f"{each.dataset}/membership", words, needs)


def _steps(study: StudySteps) -> Sequence[Step]:
    return [*(each.evaluation for each in sets.measured_sets(study)), membership(study)]


def _show(study: StudySteps, results: Results) -> Section:
    content = results.json(membership(study), MEMBERSHIP)
    tables = (
        _copies(study, results),
        _attacks(study, results, content),
        _levels(study, results, content),
        _nearer(study, results, content),
    )
    return Section(tables, notes=(content["verdict"],))


def _copies(study: StudySteps, results: Results) -> Table:
    rows = []
    for each in sets.measured_sets(study):
        audit = results.evaluation(each.evaluation).audit
        name = ", ".join(
            (
                sets.title_of(study, each.dataset),
                study.config.models[each.model].title,
                study.config.samplers[each.sampler].title,
            )
        )
        if isinstance(audit, SkippedAudit):
            rows.append(TableRow(name, (None, None, audit.skipped)))
            continue
        alarms = audit.copies.false_alarms
        source = results.source(each.evaluation, METRICS, "audit", "copies", "share")
        expected = results.source(each.evaluation, METRICS, "audit", "copies", "false_alarms", "measured")
        numbers = (
            Cell(audit.copies.share, source=source, digits=1, percent=True),
            Cell(alarms.measured, *alarms.interval, alarms.n, source=expected, digits=1, percent=True),
        )
        rows.append(TableRow(name, (*numbers, audit.copies.verdict)))
    columns = ("called copies, %", "held-out real images called copies, %", "verdict")
    return Table("P_copies", "Copies of training images", columns, tuple(rows), "images")


def _number(results: Results, step: Step, content: Mapping[str, Any] | None, *pointer: str | int, **shown: Any) -> Any:
    """Returns a number of the file with its interval; none where it holds none."""
    if content is None:
        return None
    source = results.source(step, MEMBERSHIP, *pointer, "value")
    return Cell(content["value"], content.get("low"), content.get("high"), source=source, **shown)


def _attacks(study: StudySteps, results: Results, content: Mapping[str, Any]) -> Table:
    step, shown = membership(study), {"digits": 3}
    fields = ("area", "true_positives", "area_by_patient")
    rows = tuple(
        TableRow(
            name,
            (
                *(_number(results, step, attack.get(field), "attacks", name, field, **shown) for field in fields),
                f"{min(attack['p_values'].values()):.3g}",
            ),
        )
        for name, attack in content["attacks"].items()
    )
    columns = ("area under the curve", "true positives at 1 % false ones", "area by patient", "chance without leakage")
    title = f"Membership: {content['members'][0]} members, {content['non_members'][0]} non-members"
    notes = tuple(f"{name}: {reason}" for name, reason in content["skipped"].items())
    return Table("P_membership", title, columns, rows, "score", (*notes, *content["warnings"]))


def _levels(study: StudySteps, results: Results, content: Mapping[str, Any]) -> Table:
    step = membership(study)
    rows = []
    for number, level in enumerate(content["levels"]):
        losses = tuple(
            Cell(level[field], source=results.source(step, MEMBERSHIP, "levels", number, field), digits=4)
            for field in ("training_loss", "held_out_loss")
        )
        gap = _number(results, step, level["gap"], "levels", number, "gap", digits=4, signed=True)
        rows.append(TableRow(f"{level['noise']:.2f}", (*losses, gap)))
    columns = ("training images", "held-out images", "held-out less training")
    return Table("P_loss", "Denoising loss by share of noise", columns, tuple(rows), "noise in the variance")


def _nearer(study: StudySteps, results: Results, content: Mapping[str, Any]) -> Table:
    step = membership(study)
    rows = []
    for number, each in enumerate(content["nearer"]):
        distances = tuple(
            Cell(each[field], source=results.source(step, MEMBERSHIP, "nearer", number, field))
            for field in ("to_members", "to_non_members")
        )
        difference = _number(results, step, each["difference"], "nearer", number, "difference", signed=True)
        rows.append(TableRow(each["name"], (*distances, difference)))
    columns = ("from training images", "from as many held-out images", "difference")
    return Table("P_distance", "Distance of the generated set", columns, tuple(rows), "distance")


ROWS = (Row("P", "How safe the images are", NEW, _steps, _show),)
