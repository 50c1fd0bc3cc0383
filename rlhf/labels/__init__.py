"""Votes to labels: aggregation rules, models of annotators."""
