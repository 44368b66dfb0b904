"""The forest behind the sidecar's HTTP side, with the trainer's real process."""

import json

import aiohttp
import numpy as np

from support.fake_engine import MODEL, FakeEngine
from support.serving import QUICKSTART, eventually, serving
from tempo_api.reload import Reloader
from tempo_api.wire import decode_facts
from tempo_core.lengths import valid_grid
from tempo_sidecar.forest.model import ForestLengths
from tempo_sidecar.proxy import Sidecar

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there, engine."}], "max_tokens": 50}


async def test_completions_grow_a_forest_whose_grids_reach_the_engine():
    engine = FakeEngine(tokens=3)
    lengths = ForestLengths(np.random.default_rng(0), pace_s=0.05)
    async with (
        engine.running(),
        serving(Sidecar(engine.url, Reloader(QUICKSTART), lengths).app()) as url,
        aiohttp.ClientSession() as client,
    ):

        async def chat():
            async with client.post(f"{url}/v1/chat/completions", data=json.dumps(CHAT)) as answer:
                await answer.read()

        async def metrics():
            async with client.get(f"{url}/metrics") as answer:
                return await answer.text()

        for _ in range(128):
            await chat()
        await eventually(lambda: lengths._forest is not None, timeout_s=60)
        await chat()
        facts, _ = decode_facts(engine.bodies[-1]["vllm_xargs"])
        text = await metrics()
    assert valid_grid(facts.lengths)
    assert facts.lengths == (3.0,) * len(facts.lengths)
    for line in (
        "tempo_sidecar_length_trainings_total 1.0",
        'tempo_sidecar_length_predictions_total{model="forest"} 1.0',
        'tempo_sidecar_length_bound_total{slo_class="chat"} 129.0',
        'tempo_sidecar_length_bound_covered_total{slo_class="chat"} 129.0',
        'tempo_sidecar_length_correction{slo_class="chat"} 1.0',
    ):
        assert line in text
