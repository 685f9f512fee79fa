"""The internal report: scores measured against real rows. For the steward alone, never published.

A similarity score computed on real rows is not private, and can be used to rebuild outliers (arXiv 2312.05114).
Every run leaves the quick report; `synth evaluate` makes the full one, against rows the run has not seen.
"""

from synth.evaluate.internal.quick import internal_scores, write_internal_report

__all__ = ["internal_scores", "write_internal_report"]
