"""The decisions: what a run does, as pure functions of frozen values.

Nothing in this folder waits, reads a clock, draws a random number or knows LangGraph, so every rule can be written as a table
and every promise as a property. The nodes ask; these modules answer; the nodes act.
"""
