"""What docs/workloads.md shows is what works."""

import re
from pathlib import Path

from tempo_sim.traces import FORMATS, read_trace

TEXT = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text()


def block(language):
    return re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[1]


def test_the_example_of_our_own_format_is_read_and_the_example_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("workload.jsonl").write_text(block("json"))
    exec(compile(block("python"), "workloads.md", "exec"), {})
    chat, program = read_trace(Path("faster.jsonl.gz"))
    assert (chat.slo_class, program.slo_class) == ("chat", "agent")
    assert program.at_s == 0.5
    assert [len(stage) for stage in program.stages] == [2, 1]
    assert program.stages[1][0].delay_s == 2.5


def test_every_format_and_each_of_its_fields_is_described():
    for name, known in FORMATS.items():
        assert f"`{name}`" in TEXT
        assert all(field in TEXT for field in known.fields)
