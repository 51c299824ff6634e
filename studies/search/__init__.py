"""Runs a study: arms, search spaces, the coordinator, its workers and its journal."""
