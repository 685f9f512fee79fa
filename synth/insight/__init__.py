"""Insight: what the released model and the paid-for measurements show an analyst. No private row is opened here."""

from synth.insight.insight import insight_facts as insight_facts
