"""Settings that every test shares."""

from hypothesis import settings

# Time limits on examples measure the machine, not the code.
settings.register_profile("tempo", deadline=None)
settings.load_profile("tempo")
