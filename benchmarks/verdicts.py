"""What the runs of a table at one ε say: medians, and whether dp-synth reaches its targets beside the best peer.

The targets: marginal distances at most .6 times the best peer's, half the best peer's gap to the AUC of models trained
on real rows, a two-sample test closer to .5 than any peer's, a twentieth of AIM's processor time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from contestants import CONTESTANTS, Contestant

Row = Mapping[str, str]
SHOWN = ("tvd1", "tvd2", "tvd3", "auc_gbm", "auc_lr", "c2st", "c2st_raw", "cpu_seconds", "seconds", "peak_mb")
AIM = ("aim", "aim-gift", "dpmm-aim")
SPEED = 1 / 20
LIMITS: Mapping[str, float] = {"tvd2": 0.6, "tvd3": 0.6, "gap_gbm": 0.5, "gap_lr": 0.5, "off_c2st": 1.0}
TITLES: Mapping[str, str] = {
    "tvd2": "two-way distance",
    "tvd3": "three-way distance",
    "gap_gbm": "AUC gap of boosting",
    "gap_lr": "AUC gap of logistic regression",
    "off_c2st": "c2st, distance to .5",
    "cpu_seconds": "processor time beside AIM's",
}


@dataclass(frozen=True)
class Summary:
    """A method's runs on one table at one ε.

    Attributes:
        contestant: the method.
        runs: how many ended well.
        scores: medians over those, empty when there are none.
        problem: what became of another run; empty when all ended well.
        stopped_after: processor seconds after which a run was stopped at its limit.
    """

    contestant: Contestant
    runs: int
    scores: Mapping[str, float]
    problem: str = ""
    stopped_after: float | None = None

    @property
    def done(self) -> bool:
        """Whether there is a run that ended well."""
        return bool(self.scores)


@dataclass(frozen=True)
class Verdict:
    """One target: our figure, the best peer's, and in words what stands against it when it is missed."""

    score: str
    ours: float
    peer: str
    best: float
    limit: float
    reason: str = ""

    @property
    def ratio(self) -> float:
        """Ours over the best peer's; below the limit is good."""
        return self.ours / self.best if self.best > 0 else float("inf") if self.ours > 0 else 0.0

    @property
    def met(self) -> bool:
        """Whether the target is reached; the two-sample test has to be strictly closer."""
        return self.ratio < self.limit if self.score == "off_c2st" else self.ratio <= self.limit


def summarize(rows: Iterable[Row], table: str, epsilon: str) -> list[Summary]:
    """Every method that was tried on a table at one ε, in the order of the register; ceilings at every ε."""
    here = [row for row in rows if row["table"] == table and row["epsilon"] in {epsilon, ""}]
    real = _medians([row for row in here if row["method"] == "real" and row["status"] == "ok"])
    found = []
    for contestant in CONTESTANTS.values():
        tried = [row for row in here if row["method"] == contestant.name]
        good = [row for row in tried if row["status"] == "ok"]
        bad = next((row for row in tried if row["status"] != "ok"), None)
        problem = "" if bad is None else f"{bad['status']}: {bad['reason']}"
        stopped = [float(row["cpu_seconds"]) for row in tried if row["status"] == "timeout"]
        scores = _medians(good)
        if tried:
            scores = scores | _derived(scores, real)
            found.append(Summary(contestant, len(good), scores, problem, max(stopped, default=None)))
    return found


def verdicts(found: Sequence[Summary]) -> list[Verdict]:
    """Every target that can be judged; none before dp-synth and a peer have run."""
    ours = next((each.scores for each in found if each.contestant.kind == "ours" and each.done), None)
    peers = [each for each in found if each.contestant.kind == "peer" and each.done]
    judged = []
    for score, limit in LIMITS.items() if ours else ():
        rivals = [each for each in peers if score in each.scores]
        if rivals and ours is not None and score in ours:
            best = min(rivals, key=lambda each: each.scores[score])
            verdict = Verdict(score, ours[score], best.contestant.title, best.scores[score], limit)
            plain = [each for each in rivals if not each.contestant.gift]
            judged.append(_explained(verdict, best, plain, found))
    speed = _speed(ours["cpu_seconds"], found) if ours is not None and "cpu_seconds" in ours else None
    return judged if speed is None else [*judged, speed]


def number(value: float | None, digits: int) -> str:
    """A figure as the pages write it: .021, 1.000, 59; – when there is none."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _medians(rows: Sequence[Row]) -> dict[str, float]:
    names = [name for name in SHOWN if any(row.get(name) for row in rows)]
    return {name: median(float(row[name]) for row in rows if row.get(name)) for name in names}


def _derived(scores: Mapping[str, float], real: Mapping[str, float]) -> dict[str, float]:
    derived = {f"gap_{name}": real[auc] - scores[auc] for name, auc in _aucs() if auc in real and auc in scores}
    return derived | ({"off_c2st": abs(scores["c2st"] - 0.5)} if "c2st" in scores else {})


def _aucs() -> tuple[tuple[str, str], ...]:
    return (("gbm", "auc_gbm"), ("lr", "auc_lr"))


def _explained(verdict: Verdict, best: Summary, plain: Sequence[Summary], found: Sequence[Summary]) -> Verdict:
    """The same with a reason when the target is missed: what other peers and what real people score."""
    if verdict.met:
        return verdict
    score = verdict.score
    reason = f"{verdict.ratio:.2f} times the best peer's, {verdict.limit:g} is wanted"
    if best.contestant.gift and plain:
        fair = min(plain, key=lambda each: each.scores[score])
        ratio = verdict.ours / fair.scores[score] if fair.scores[score] > 0 else float("inf")
        reason += f"; that peer is given something free, beside {fair.contestant.title} it is {ratio:.2f}"
    for each in found:
        if each.contestant.name in ("others", "resampled") and score in each.scores:
            reason += f"; {each.contestant.title} have {number(each.scores[score], 3)}"
    return replace(verdict, reason=reason)


def _speed(ours: float, found: Sequence[Summary]) -> Verdict | None:
    """Processor time beside the fastest AIM that ended; else beside the limit at which one was stopped."""
    tried = [each for each in found if each.contestant.name in AIM]
    ended = [(each.scores["cpu_seconds"], each.contestant.title) for each in tried if each.done]
    stopped = [
        (each.stopped_after, f"{each.contestant.title}, stopped") for each in tried if each.stopped_after is not None
    ]
    if not (ended or stopped):
        return None
    took, title = min(ended or stopped)
    verdict = Verdict("cpu_seconds", ours, title, took, SPEED)
    least = "" if ended else " at least"
    return verdict if verdict.met else replace(verdict, reason=f"{took / ours:.1f} times faster{least}, 20 is wanted")
