"""The page of a long audit, for the steward alone."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

MADE_ON = {"bundle": "the bundle's rows", "public table": "the public table", "private rows": "the private rows"}


def audit_page(content: Mapping[str, Any]) -> str:
    """The report as one page without scripts, from what audit.json holds."""
    one = content["one_run"]
    counts = "".join(
        _row([f"{guesses:,}", f"{correct:,}", f"{correct / guesses:.3f}"])
        for guesses, correct in zip(one["guesses"], one["correct"], strict=True)
    )
    claim = f"ε = {one['claimed_epsilon']:g} at δ = {one['delta']:g}"
    verdict = (
        "The audit refutes the claim. Publish nothing made by this version until the fault is found."
        if content["refuted"]
        else "The audit does not refute the claim."
    )
    declared = f" {html.escape(content['declared'])}" if content["declared"] else ""
    paid = "It was charged to the population as one more run." if content["charged"] else "It cost no budget."
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Audit</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #222;
  overflow-wrap: break-word; }}
table {{ border-collapse: collapse; margin: 1rem 0 2rem; }}
td, th {{ padding: .25rem 0 .25rem 1.5rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: bottom;
  font-variant-numeric: tabular-nums; }}
td:first-child, th:first-child {{ padding-left: 0; }}
.attacks td:first-child, .attacks th:first-child {{ text-align: left; }}
@media (max-width: 40rem) {{ .attacks td + td, .attacks th + th {{ padding-left: .5rem; }}
  .attacks {{ font-size: .85rem; }} }}
.scroll {{ overflow-x: auto; max-width: 100%; }}
.warning {{ background: #fdecea; border-left: 4px solid #b3261e; padding: .75rem 1rem; }}
</style></head><body>
<h1>Audit</h1>
<p class="warning"><strong>For the steward only.</strong> {html.escape(content["reading"])}</p>
<p><strong>{html.escape(verdict)}</strong> Claimed: {claim}, for {html.escape(one["covers"])}. Made on
{html.escape(MADE_ON.get(content["rows_of"], content["rows_of"]))}.{declared} {paid}</p>
<h2>One run with planted canaries</h2>
<p>{one["canaries"]:,} records drawn from the public schema, each planted or not by a fair coin of its own, beside
{one["rows"]:,} rows. The coins were guessed from what was released, the surest first.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Guesses"><table><tr>
<th scope="col">surest guesses</th><th scope="col">right</th><th scope="col">share</th></tr>
{counts}</table></div>
<p>Whatever the mechanism, ε is at least {one["epsilon_lower_bound"]:.3f} with {100 * one["confidence"]:g} %
confidence. If the noise is Gaussian, ε is at least {one["noise_epsilon_lower_bound"]:.3f} with
{100 * one["noise_confidence"]:.10g} % confidence.</p>
<h2>Shadow tables</h2>
{_shadow(content["shadow"])}
</body></html>
"""


def _shadow(shadow: Mapping[str, Any] | None) -> str:
    if shadow is None:
        return "<p>None were made.</p>"
    attacks = "".join(
        _row(
            [
                attack["sees"],
                f"{attack['true_positives']} of {attack['members']}",
                f"{attack['false_positives']} of {attack['non_members']}",
                f"{attack['epsilon_lower_bound']:.3f}",
                f"{attack['gaussian_epsilon_lower_bound']:.3f}",
            ]
        )
        for attack in shadow["attacks"]
    )
    return f"""<p>The whole pipeline {shadow["repetitions"]} times, half of them with one outlying record. Each attack
says of every repetition whether the record was in it: its threshold was chosen on the first half and is judged here on
the second. An attack that is always right would show ε ≥ {shadow["reach"]:.2f} here; more repetitions reach further.
Confidence {100 * shadow["confidence"]:g} % for all attacks together.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Attacks"><table class="attacks"><tr>
<th scope="col">the attack sees</th><th scope="col">said in, with it</th><th scope="col">said in, without</th>
<th scope="col">ε at least</th><th scope="col">if Gaussian</th></tr>{attacks}</table></div>"""


def _row(cells: Iterable[object]) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>"
