"""The three sentences at the top of a study: what generated images are worth, how safe and how real they are."""

from collections.abc import Callable

from diffpath_jax.evaluation.membership_record import MEMBERSHIP
from diffpath_jax.evaluation.record import SkippedAudit
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.metrics.memorization.membership import LEAKS, NO_SIGN
from diffpath_jax.study.results import Results
from diffpath_jax.study.rows import arms, privacy, realness, scarcity, sets, worth
from diffpath_jax.study.steps import StudySteps
from diffpath_jax.study.table import Cell, Verdict


def verdicts(study: StudySteps, results: Results) -> tuple[Verdict, ...]:
    """Returns the answers that the results allow; an answer whose results are missing says so."""
    questions: dict[str, Callable[[StudySteps, Results], Verdict]] = {
        "Worth": _worth,
        "Safe": _safe,
        "Real": _real,
    }
    return tuple(_answered(question, answer, study, results) for question, answer in questions.items())


def _answered(
    question: str, answer: Callable[[StudySteps, Results], Verdict], study: StudySteps, results: Results
) -> Verdict:
    try:
        return answer(study, results)
    except DiffpathError:
        return Verdict(question, "not measured yet", "The steps that this answer needs are not done.", None)


def _worth(study: StudySteps, results: Results) -> Verdict:
    best = worth.chosen_amount(study, results)
    if not best:
        why = "On validation images no amount of generated images was better than none (T5c)."
        return Verdict("Worth", "no gain", why, False)
    gain = results.difference(worth.added(study), f"added_{best:g}", arms.SCORE)
    few = [
        f"{results.difference(scarcity.few_patients(study, share), f'patients_{share:g}_both', arms.SCORE).text} at "
        f"{share:.0%} of the patients"
        for share in sorted(study.config.worth.patient_shares)[:1]
    ]
    sentence = (
        f"{best:g} generated images for each real one, an amount chosen on validation images, change the balanced "
        f"accuracy on held-out patients by {gain.text} points {gain.interval or '(no interval: too few patients)'}"
        f"{'; ' + few[0] if few else ''} (T5c, T5d)."
    )
    return Verdict("Worth", _gain_in_words(gain), sentence, _sign(gain))


def _gain_in_words(gain: Cell) -> str:
    words = {True: "a gain", False: "a loss", None: "no gain shown"}
    return words[_sign(gain)]


def _sign(gain: Cell) -> bool | None:
    """Returns whether a difference is above 0, below it, or neither for sure."""
    if gain.low is None or gain.high is None:
        return None
    return True if gain.low > 0 else False if gain.high < 0 else None


def _safe(study: StudySteps, results: Results) -> Verdict:
    content = results.json(privacy.membership(study), MEMBERSHIP)
    audit = results.evaluation(sets.first_set(study).evaluation).audit
    copying = None if isinstance(audit, SkippedAudit) else audit.copies.copying
    copies = f"not audited: {audit.skipped}" if isinstance(audit, SkippedAudit) else audit.copies.verdict
    leaks = content["outcome"] == LEAKS
    alarms = [word for word, alarm in (("copies", copying), ("membership leaks", leaks)) if alarm]
    answer = " and ".join(alarms) or content["outcome"]
    good = False if alarms else True if content["outcome"] == NO_SIGN and copying is False else None
    return Verdict("Safe", answer, f"Copies: {copies}. Membership: {content['verdict']} (P).", good)


def _real(study: StudySteps, results: Results) -> Verdict:
    return real_verdict(realness.realness(study, results))


def real_verdict(real: realness.Realness) -> Verdict:
    """Returns the answer to how real images are."""
    distance, floor = real.distance, real.floor
    beside = f"; other real images reach {floor.text}" if floor else ""
    rung = (
        f", no farther than the same real images as JPEG of quality {real.jpeg}"
        if real.jpeg
        else ", farther than the same real images as JPEG of any quality measured"
    )
    answer = f"{distance.value / floor.value:.1f} x the floor" if floor and floor.value > 0 else distance.text
    covered = ""
    if real.coverage and real.coverage_floor:
        answer += f", covers {real.coverage.text} %"
        covered = (
            f" A generated image is near {real.coverage.text} % of the held-out real ones; other real images are near "
            f"{real.coverage_floor.text} %."
        )
    sentence = f"Frechet distance {distance.text} {distance.interval}{beside}{rung} (Q).{covered}"
    return Verdict("Real", answer, sentence, real.is_near)
