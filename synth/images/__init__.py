"""The image recipe: the same verbs as for tables, on low-frequency coefficients instead of cells."""
