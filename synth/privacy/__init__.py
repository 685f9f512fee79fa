"""Budget, accounting, ledger, noise: the only place that decides what is private."""
