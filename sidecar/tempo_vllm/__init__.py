"""The Tempo scheduler inside vLLM: a thin adapter over `tempo_core`."""
