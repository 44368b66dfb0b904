"""What the README promises: the quickstart, with the real model, as it is."""

import json
import shlex
import signal
import subprocess

import openai
import pytest

from support.pool import running_pool
from support.processes import wait_until
from support.serving import QUICKSTART

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]  # the first time, the model has to be made


def test_the_quickstart_answers_sensibly_and_ctrl_c_lets_a_stream_finish_and_leaves_nothing(tmp_path):
    with (
        running_pool(QUICKSTART, tmp_path) as pool,
        openai.OpenAI(base_url=pool.url, api_key="none", max_retries=0, timeout=120) as client,
    ):
        answer = client.chat.completions.create(
            model=pool.model,
            messages=[{"role": "user", "content": "What is the capital of France? Answer in one word."}],
            max_tokens=100,
            temperature=0,
        )
        assert "Paris" in answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "stop"

        curl = next(line for line in pool.told().splitlines() if line.strip().startswith("curl "))
        shown = subprocess.run([*shlex.split(curl), "-sS"], capture_output=True, text=True, timeout=120, check=True)
        assert json.loads(shown.stdout)["object"] == "chat.completion"

        stream = client.chat.completions.create(
            model=pool.model,
            messages=[{"role": "user", "content": "Count from one to twenty."}],
            max_tokens=60,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        first = next(iter(stream))
        pool.process.send_signal(signal.SIGINT)
        reasons = [choice.finish_reason for chunk in (first, *stream) for choice in chunk.choices]
        assert reasons[-1] == "length"
        assert pool.process.wait(timeout=60) == 0
        wait_until(lambda: not pool.mark.alive())
