"""Prefect flows and the command line: the only importer of Prefect."""
