"""All of it: from the measurements that were paid for and the model that is released."""

from __future__ import annotations

from synth.facts import InsightFacts
from synth.insight.contrast import contrast_of
from synth.insight.latent_map import map_of
from synth.insight.pairs import known_pairs, unmeasured_pairs
from synth.tables.measurements import Measurements
from synth.tables.model import TableModel


def insight_facts(measured: Measurements, model: TableModel) -> InsightFacts:
    """What an analyst can learn of a table beside its rows. Post-processing: no budget is spent."""
    pairs = known_pairs(measured, model)
    return InsightFacts(
        pairs=pairs,
        unmeasured=unmeasured_pairs(model, pairs),
        contrast=contrast_of(measured, model, pairs),
        map=map_of(model),
    )
