"""What is made of the figures, who is compared and how each is started, and the whole in miniature."""

import io
import sys
from collections import Counter

import orjson
import pytest
from click.testing import CliRunner
from rich.console import Console

from tempo_api.manifest import load_pool
from tempo_bench.cli import bench
from tempo_bench.pool import PoolError
from tempo_bench.routers.cases import CASES, Case, Plan
from tempo_bench.routers.contenders import Contender, Place, how_to_install, installed, ours
from tempo_bench.routers.lineup import lineup
from tempo_bench.routers.load import Tally
from tempo_bench.routers.measure import Entrant, Memory, Record, Sample, judge
from tempo_bench.routers.processes import Usage
from tempo_bench.routers.requests import Shape
from tempo_bench.routers.rows import summarise, times_bare
from tempo_bench.routers.run import run_routers
from tempo_bench.routers.soak import growth_mb, is_flat, run_soak
from tempo_bench.routers.streams import run_streams
from tempo_bench.routers.tables import tables

WHOLE = Case("whole", 4, Shape(), "a whole answer")
STREAM = Case("stream", 2, Shape(chunks=5, gap_ms=1), "a stream")
KEYS = {"router", "case", "concurrency", "p50_ms", "p99_ms", "requests_per_s", "cpu_ms_per_request", "rss_mb"}


def printed():
    return Console(width=160, file=io.StringIO())


@pytest.fixture
def rivals(tmp_path):
    """A folder with the given packages' versions, as pip leaves them."""

    def make(**versions):
        for package, version in versions.items():
            info = tmp_path / f"lib/python3.11/site-packages/{package}-{version}.dist-info"
            info.mkdir(parents=True)
            name = package.replace("_", "-")
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        return tmp_path

    return make


@pytest.fixture
def place(tmp_path):
    return Place(8001, 8002, "http://127.0.0.1:8000", "m", tmp_path)


# Who is compared


def test_rivals_are_found_by_what_is_installed_and_the_others_are_named(rivals):
    found, missing = installed(rivals(vllm_router="0.1.17", litellm="1.106.2"))
    assert [(each.name, each.version) for each in found] == [
        ("vllm-router round_robin", "0.1.17"),
        ("vllm-router cache_aware", "0.1.17"),
        ("litellm", "1.106.2"),
    ]
    assert missing == ["smg"]


def test_an_empty_folder_has_no_rivals_and_says_how_to_get_them(tmp_path):
    found, missing = installed(tmp_path / "nowhere")
    assert (found, missing) == ([], ["vllm-router", "smg", "litellm"])
    assert how_to_install(tmp_path, missing).endswith("-c requirements/rivals.txt vllm-router smg 'litellm[proxy]'")


def test_every_rival_gets_one_backend_and_listens_on_loopback_only(rivals, place):
    folder = rivals(vllm_router="1", smg="1", litellm="1")
    for contender in installed(folder)[0]:
        command = contender.command(place)
        assert command[0].startswith(f"{folder}/bin/")
        assert command[command.index("--host") + 1] == "127.0.0.1"
        assert command[command.index("--port") + 1] == "8001"
        assert place.backend_url in " ".join([*command, *contender.files(place).values()])
        if "--prometheus-port" in command:
            assert command[command.index("--prometheus-host") + 1] == "127.0.0.1"
            assert command[command.index("--prometheus-port") + 1] == "8002"


def test_the_rust_routers_run_under_the_policy_they_are_named_for(rivals, place):
    policies = {
        contender.name: (command := contender.command(place))[command.index("--policy") + 1]
        for contender in installed(rivals(vllm_router="1", smg="1"))[0]
    }
    assert policies == {
        "vllm-router round_robin": "round_robin",
        "vllm-router cache_aware": "cache_aware",
        "smg cache_aware": "cache_aware",
    }


def test_litellm_has_one_worker_and_fetches_nothing(rivals, place):
    (litellm,), _ = installed(rivals(litellm="1"))
    command = litellm.command(place)
    assert command[command.index("--num_workers") + 1] == "1"
    config = orjson.loads(litellm.files(place)["litellm.yaml"])
    assert config["model_list"][0]["litellm_params"]["api_base"] == "http://127.0.0.1:8000/v1"
    assert config["litellm_settings"]["telemetry"] is False
    assert litellm.environment["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"


def test_tempos_manifest_serves_the_backends_model_with_room_for_every_case(place, tmp_path):
    tempo = ours()[1]
    (tmp_path / "pool.yaml").write_text(tempo.files(place)["pool.yaml"])
    pool = load_pool(tmp_path / "pool.yaml")
    assert pool.served_model_name == "m"
    assert pool.spec.router.max_concurrent_requests >= max(case.concurrency for case in CASES)


# What is made of the figures


def sample(p50_ms=1.0, cpu_ms=0.2, first_p50_ms=0.5, rss_mb=40.0):
    return Sample(p50_ms, 2 * p50_ms, first_p50_ms, 2 * first_p50_ms, 1000.0, cpu_ms, rss_mb)


def rows_of(**records):
    """Rows of routers that each have a record at WHOLE."""
    entrants = [Entrant(name, "1", 1) for name in records]
    return summarise(entrants, {(name, WHOLE): record for name, record in records.items()}, {})


def test_a_turn_is_judged_by_answers_alone_and_by_the_cpu_that_they_took():
    tally = Tally([0.001, 0.003], [0.001, 0.002], Counter(), elapsed_s=0.5)
    judged = judge(tally, Usage(1.0, 40.0), Usage(1.004, 41.0))
    assert (judged.p50_ms, judged.requests_per_s, judged.rss_mb) == (2.0, 4.0, 41.0)
    assert judged.cpu_ms == pytest.approx(2.0)


def test_a_turn_without_an_answer_has_no_latency_and_no_cost():
    judged = judge(Tally(errors=Counter({"status 500": 3}), elapsed_s=1.0), Usage(1.0, 40.0), Usage(2.0, 40.0))
    assert (judged.p50_ms, judged.cpu_ms, judged.requests_per_s) == (None, None, 0.0)


def test_a_row_is_the_median_of_the_rounds():
    row = rows_of(direct=Record([sample(9.0), sample(1.0), sample(2.0)], requests=3))[0]
    assert row.keys() >= KEYS
    assert (row["p50_ms"], row["p99_ms"], row["ranked"]) == (2.0, 4.0, True)


def test_a_row_says_what_the_router_adds_and_how_it_compares_with_the_bare_proxy():
    rows = rows_of(
        direct=Record([sample(1.0, cpu_ms=0.0)], 1),
        aiohttp=Record([sample(1.5)], 1),
        tempo=Record([sample(1.7, 0.3)], 1),
    )
    assert [row["added_p50_ms"] for row in rows] == [0.0, 0.5, 0.7]
    assert times_bare(rows[2], rows) == pytest.approx(1.5)


def test_what_is_added_to_a_stream_is_added_to_its_first_token():
    entrants = [Entrant("direct", "", 1), Entrant("tempo", "", 2)]
    firsts = {"direct": 0.5, "tempo": 0.75}
    records = {(name, STREAM): Record([sample(first_p50_ms=ms)], 1) for name, ms in firsts.items()}
    assert summarise(entrants, records, {})[1]["added_p50_ms"] == 0.25


def test_a_router_with_errors_is_marked_not_ranked_and_comes_last():
    failing = Record([sample(0.1, cpu_ms=0.01)], 1, Counter({"status 500": 2}))
    rows = rows_of(direct=Record([sample()], 1), broken=failing, silent=Record())
    assert [row["ranked"] for row in rows] == [True, False, False]
    console = printed()
    console.print(*tables([WHOLE], rows))
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith(("  direct", "  broken"))]
    assert [line.split()[0] for line in lines] == ["direct", "broken"]
    assert "2 x status 500" in lines[1]


def test_memory_has_a_row_of_its_own_and_a_router_that_died_has_none():
    entrants = [Entrant("tempo", "1", 1), Entrant("rival", "1", 2)]
    memories = {"tempo": Memory(40.0, 60.0, 1000, Counter()), "rival": Memory(40.0, None, 10, Counter({"gone": 1}))}
    tempo, rival = summarise(entrants, {}, memories)
    assert (tempo["case"], tempo["rss_mb"], tempo["requests"], tempo["ranked"]) == ("memory", 60.0, 1000, True)
    assert (rival["rss_mb"], rival["ranked"]) == (None, False)
    printed().print(*tables([], [tempo, rival]))


def test_memory_that_settles_is_flat_and_a_leak_is_not():
    settling = [(float(at), 50.0 + min(at, 20)) for at in range(61)]
    leaking = [(float(at), 50.0 + 0.1 * at) for at in range(61)]
    assert growth_mb(settling) == pytest.approx(0.0)
    assert is_flat(settling)
    assert growth_mb(leaking) == pytest.approx(4.0)
    assert not is_flat(leaking)
    assert is_flat([(0.0, 50.0)])


def test_scaling_changes_durations_and_counts_but_neither_cases_nor_rounds():
    half = Plan().scaled(0.5)
    assert (half.cases, half.rounds) == (CASES, Plan().rounds)
    assert (half.turn_s, half.requests) == (Plan().turn_s / 2, 50_000)


# The real thing, in miniature


def test_backend_bare_proxy_and_tempo_are_compared_for_real(tmp_path):
    plan = Plan((WHOLE, STREAM), rounds=2, turn_s=0.05, requests=150, memory_s=10.0)
    console = printed()
    assert run_routers(tmp_path / "no-rivals", tmp_path / "out", plan, console), console.file.getvalue()
    rows = orjson.loads((tmp_path / "out/summary.json").read_bytes())
    assert {(row["router"], row["case"]) for row in rows} == {
        *((router, case) for router in ("direct", "aiohttp", "tempo") for case in ("whole", "stream")),
        ("aiohttp", "memory"),
        ("tempo", "memory"),
    }
    for row in rows:
        assert row.keys() >= KEYS
        assert row["errors"] == {}
        if row["case"] != "memory":
            assert 0.0 < row["p50_ms"] <= row["p99_ms"]
            assert row["requests_per_s"] > 0.0
    routers = [row for row in rows if row["router"] != "direct"]
    assert all(row["rss_mb"] > 10.0 for row in routers)
    assert all(row["requests"] >= 150 for row in routers if row["case"] == "memory")
    assert "vllm-router, smg, litellm. To install" in console.file.getvalue()


def test_a_soak_and_many_streams_are_measured_for_real(tmp_path):
    run_soak(0.5, tmp_path, printed())
    soaked = orjson.loads((tmp_path / "soak.json").read_bytes())
    assert [row["router"] for row in soaked] == ["aiohttp", "tempo"]
    assert all(row["requests"] > 0 and not row["errors"] and len(row["rss_mb"]) > 1 for row in soaked)
    assert run_streams(20, 50, tmp_path, printed(), hold_s=0.6)
    streams = orjson.loads((tmp_path / "streams.json").read_bytes())
    assert (streams["completed"], streams["errors"]) == (20, {})
    assert 0.0 < streams["healthz_p50_ms"] <= streams["healthz_p99_ms"]


def script(code):
    return lambda place: [sys.executable, "-c", code]


def test_a_rival_that_does_not_start_is_left_out_with_the_reason(tmp_path):
    console = printed()
    with lineup([Contender("rival", "1", script("raise SystemExit('no licence')"))], tmp_path, console) as entrants:
        assert [entrant.name for entrant in entrants] == ["direct"]
    assert "no licence" in console.file.getvalue()


def test_one_of_ours_that_does_not_start_is_an_error(tmp_path):
    broken = Contender("tempo", "1", script("raise SystemExit('bad manifest')"))
    with pytest.raises(PoolError, match="bad manifest"), lineup([broken], tmp_path, printed()):
        pass


def test_routers_get_no_environment_but_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    tell = "import os; print(sorted(os.environ))"
    with lineup([Contender("rival", "1", script(tell), environment={"EXTRA": "1"})], tmp_path, printed()):
        pass
    said = (tmp_path / "rival/log").read_text()
    assert "EXTRA" in said
    assert "OPENAI_API_KEY" not in said


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--soak", "5", "--streams", "5"), "Choose one of --soak, --streams and --failures"),
        (("--failures", "--streams", "5"), "Choose one of"),
        (("--soak", "0"), "--soak"),
        (("--streams", "0"), "--streams"),
        (("--scale", "0"), "--scale"),
    ],
)
def test_bad_options_are_a_line_not_a_traceback(arguments, problem):
    result = CliRunner().invoke(bench, ["router", *arguments])
    assert result.exit_code == 2
    assert problem in result.output


def test_help_has_examples():
    result = CliRunner().invoke(bench, ["router", "--help"])
    assert result.exit_code == 0
    assert "tempo bench router --streams 2000" in result.output
