"""Reads what is stored of a study: evidence, tables, frames, statistics, diagnosis."""
