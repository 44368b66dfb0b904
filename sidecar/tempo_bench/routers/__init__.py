"""Routers side by side in front of the same instant backend: `tempo bench router`."""
