"""The empirical audit: what an attack on a run's own mechanism shows about ε. It can refute ε, never prove it."""
