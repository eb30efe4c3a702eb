"""Requests lost and time taken by the strategies."""
