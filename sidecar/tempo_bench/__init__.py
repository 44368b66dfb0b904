"""Seeded load against real endpoints, and reports of what came of it."""
