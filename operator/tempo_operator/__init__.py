"""Pools made real: today as local processes (`tempo up`)."""
