"""The methods that are compared, and on what terms each runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coding import Binning

Kind = Literal["ours", "peer", "floor", "ceiling"]


@dataclass(frozen=True)
class Contestant:
    """One method.

    Attributes:
        name: how the command line and the CSV call it.
        title: how the page calls it.
        kind: ours; a private peer; the floor (independent columns); a ceiling, which is not private.
        script: the script in `peers/`; its requirements stand beside it, except for what runs in our own environment.
        method: what the script is asked for.
        binning: how numbers are cut before the peer sees them (`coding.py`).
        gift: whether the peer is given something for nothing that ours pays for, beyond the row count.
        seeds: whether runs differ by a seed; else one run says all.
    """

    name: str
    title: str
    kind: Kind
    script: str = ""
    method: str = ""
    binning: Binning = "width"
    gift: bool = False
    seeds: bool = True
    own_environment: bool = True

    @property
    def private(self) -> bool:
        """Whether it spends ε."""
        return self.kind != "ceiling"


CONTESTANTS = {
    each.name: each
    for each in (
        Contestant("ours", "dp-synth", "ours"),
        Contestant("aim", "SmartNoise AIM", "peer", "smartnoise_synth", "aim"),
        Contestant("aim-gift", "SmartNoise AIM, bins given", "peer", "smartnoise_synth", "aim", "gift", gift=True),
        Contestant("mst", "SmartNoise MST", "peer", "smartnoise_synth", "mst"),
        Contestant("mst-gift", "SmartNoise MST, bins given", "peer", "smartnoise_synth", "mst", "gift", gift=True),
        Contestant("dpctgan", "SmartNoise DP-CTGAN", "peer", "smartnoise_synth", "dpctgan", "own", gift=True),
        Contestant("patectgan", "SmartNoise PATE-CTGAN", "peer", "smartnoise_synth", "patectgan", "own", gift=True),
        Contestant("dpmm-aim", "dpmm AIM", "peer", "dpmm_models", "aim", "own"),
        Contestant("dpmm-mst", "dpmm MST", "peer", "dpmm_models", "mst", "own"),
        Contestant("dpmm-privbayes", "dpmm PrivBayes", "peer", "dpmm_models", "privbayes", "own"),
        Contestant("independent", "independent columns", "floor", "independent", "", "fine", own_environment=False),
        Contestant("ctgan", "CTGAN, not private", "ceiling", "ctgan_plain", "", "own"),
        Contestant("others", "as many other people", "ceiling"),
        Contestant("resampled", "as many rows drawn from the training rows", "ceiling"),
        Contestant("real", "the training rows", "ceiling", seeds=False),
    )
}
