"""Benchmarks: figures that issues and docs quote, each made by one command."""
