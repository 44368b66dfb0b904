"""What routers tell each other of their tenants, through a real Redis."""

import asyncio
import tempfile
from pathlib import Path

import aiohttp
import pytest
import yaml
from click.testing import CliRunner

from support.fake_engine import MODEL, FakeEngine
from support.k8s.samples import a_pool, chat_class
from support.processes import until
from support.redis import need_redis, redis_server
from support.serving import QUICKSTART, serving
from tempo_api.reload import Reloader
from tempo_core.admission import Engines, Gate, share_of
from tempo_core.slo import Objectives, Pattern, SLOClass
from tempo_core.snapshot import Job, Settings
from tempo_router.app import build_app
from tempo_router.cli import router
from tempo_router.tenants import Exchange, TotalsError, open_totals

need_redis()

from redis.asyncio import Redis  # noqa: E402  # after the skip

from tempo_router.tenants_redis import RedisTotals  # noqa: E402

KEY = "tempo:tenants:v1:chat"
CHAT = SLOClass("chat", Pattern.LATENCY, Objectives(ttft_s=1.0, tbt_s=0.1))
ODD = ("", "+", "-", "a b\n", "\0", "Žofie 🦊", "a\u0301", "\udcff\udc80", "x" * 1000)
"""Names of tenants as headers and bodies may have them, bytes that are no text included."""


@pytest.fixture
async def server():
    with tempfile.TemporaryDirectory(prefix="tempo-") as folder:  # the path of a socket must be short
        async with redis_server(Path(folder)) as running:
            yield running


@pytest.fixture
async def client(server):
    async with Redis.from_url(server.url) as client:
        yield client


class SharingRouter:
    """As much of a router as its tenants notice."""

    def __init__(self, totals):
        self.gate = Gate(100, Settings())
        self.totals = totals
        self.exchange = Exchange(totals, self.gate.shares).exchange

    def serves(self, tenant, tokens):
        self.gate.shares.serve(share_of(tenant, "chat"), tokens)

    def charged(self, *tenants):
        leads = self.gate.shares.leads([share_of(tenant, "chat") for tenant in ("nobody", *tenants)])
        return [leads[share_of(tenant, "chat")] for tenant in tenants]


@pytest.fixture
async def sharing(server):
    """Makes routers of a pool, and closes what they hold open."""
    made = []

    def make(pool="chat", **options):
        made.append(SharingRouter(RedisTotals(server.url, pool, **options)))
        return made[-1]

    yield make
    for each in made:
        await each.totals.close()


def waiting(id_, arrival_s, tenant):
    return Job(id_, CHAT, arrival_s=arrival_s, prompt_tokens=50, max_tokens=200, tenant=tenant)


async def fetched(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


async def exchange(*routers):
    for each in routers + routers:
        await each.exchange()


async def test_what_one_router_served_the_other_charges_too(sharing):
    here, there = sharing(), sharing()
    here.serves("x", 1000.0)
    here.serves("y", 0.1)
    there.serves("x", 500.0)
    there.serves("y", 0.2)
    here.serves("x", -400.5)
    await exchange(here, there)
    assert here.charged("x", "y") == there.charged("x", "y") == pytest.approx([1099.5, 0.3])


async def test_pools_do_not_share_their_tenants(sharing):
    chat, code = sharing("chat"), sharing("code")
    chat.serves("x", 1000.0)
    code.serves("x", 1.0)
    await exchange(chat, code)
    assert (chat.charged("x"), code.charged("x")) == ([1000.0], [1.0])


async def test_a_tenant_that_one_router_serves_without_end_stands_back_at_the_other(sharing):
    here, there, apart = sharing(), sharing(), sharing("code")
    engines = Engines(places=4, tokens_per_s=100.0)
    for number in range(20):
        here.serves("greedy", 500.0)
        for each in (there, apart):
            each.gate.hold(waiting(f"greedy{number}", 0.0, "greedy"), 0.0, engines)
    for each in (there, apart):
        each.gate.hold(waiting("modest", 0.5, "modest"), 0.5, engines)
    await exchange(here, there, apart)
    assert there.gate.release(0.5, engines).id == "modest"
    assert apart.gate.release(0.5, engines).tenant == "greedy"


async def test_any_name_of_a_tenant_comes_through(sharing):
    here, there = sharing(), sharing()
    for number, tenant in enumerate(ODD, 1):
        here.serves(tenant, float(number))
        there.serves(tenant, 0.0)
    await exchange(here, there)
    assert there.charged(*ODD) == [float(number) for number in range(1, len(ODD) + 1)]


async def test_members_that_others_made_disturb_nobody(client, sharing):
    here, there = sharing(), sharing()
    await client.zadd(KEY, {b"\xff\xfe": 5.0, b"": 1.0, b"+chat/x": float("inf"), b"-x": float("-inf")})
    here.serves("y", 10.0)
    for each in (here, there):
        each.serves("x", 0.0)
        each.serves("y", 0.0)
    await exchange(here, there)
    assert there.charged("x", "y") == [0.0, 10.0]


async def test_a_router_goes_on_by_itself_while_redis_is_away_and_catches_up_once_it_is_back(server, sharing):
    here, there = sharing(), sharing()
    here.serves("x", 100.0)
    there.serves("x", 10.0)
    await exchange(here, there)
    await server.stop()
    for _ in range(3):
        here.serves("x", 1.0)
        there.serves("x", 5.0)
        await exchange(here, there)
    assert (here.charged("x"), there.charged("x")) == ([113.0], [125.0])
    await server.start()
    await exchange(here, there)
    assert here.charged("x") == there.charged("x") == [128.0]


async def test_a_flush_charges_and_credits_nobody(client, sharing):
    here, there = sharing(), sharing()
    here.serves("x", 1000.0)
    there.serves("x", 10.0)
    await exchange(here, there)
    await client.flushall()
    await exchange(here, there)
    assert here.charged("x") == there.charged("x") == [1010.0]
    here.serves("x", 3.0)
    await exchange(here, there)
    assert here.charged("x") == there.charged("x") == [1013.0]


async def test_the_totals_have_an_end_that_no_use_puts_off(client, sharing):
    here = sharing(kept_s=1)
    here.serves("x", 1000.0)

    async def gone():
        await here.exchange()
        return await client.zscore(KEY, b"+chat/x") is None

    await here.exchange()
    assert 0 < await client.pttl(KEY) <= 1000
    await until(gone)
    newcomer = sharing()
    newcomer.serves("x", 1.0)
    await exchange(here, newcomer)
    assert (here.charged("x"), newcomer.charged("x")) == ([1001.0], [1.0])


async def test_beyond_the_bound_those_that_were_served_least_go(client, sharing):
    here = sharing(max_members=2)
    for tenant, tokens in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        here.serves(tenant, tokens)
    await exchange(here)
    assert await client.zrange(KEY, 0, -1) == [b"+chat/a", b""]
    assert here.charged("a", "b", "c") == [3.0, 1.0, 2.0]
    here.serves("b", 2.5)
    await exchange(here)
    assert here.charged("b") == [3.5]


async def test_a_key_that_holds_something_else_is_an_error(client, sharing):
    await client.set(KEY, "mine")
    with pytest.raises(TotalsError, match="WRONGTYPE"):
        await sharing().totals.add({b"+chat/x": 1.0}, [b"+chat/x"])


async def test_a_server_that_does_not_answer_is_an_error_after_the_timeout_and_is_asked_once():
    asked = []

    async def read_only(reader, writer):
        asked.append(await reader.read(-1))
        writer.close()
        await writer.wait_closed()

    with tempfile.TemporaryDirectory(prefix="tempo-") as folder:
        async with await asyncio.start_unix_server(read_only, f"{folder}/silent.sock"):
            totals = RedisTotals(f"unix://{folder}/silent.sock", "chat", timeout_s=0.1)
            for use in (totals.ping(), totals.add({b"+chat/x": 1.0}, [b"+chat/x"])):
                with pytest.raises(TotalsError, match="Redis"):
                    await asyncio.wait_for(use, 5.0)
            await totals.close()
            await until(lambda: len(asked) == 2)


@pytest.mark.parametrize("url", ["redis://:pa/ss@host:6379", "http://host:6379", "redis://host:port", "nonsense"])
def test_a_url_that_is_none_is_refused_in_one_line_that_does_not_quote_it(url):
    args = ["--config", str(QUICKSTART), "--replica", "r0=http://h", "--tenants", url]
    result = CliRunner().invoke(router, args)
    assert result.exit_code == 2
    assert "--tenants" in result.output
    assert "redis://:PASSWORD@HOST:6379/0" in " ".join(result.output.split())
    assert "'pa'" not in result.output
    assert isinstance(open_totals("unix:///tmp/none", "chat"), RedisTotals)


async def test_a_router_says_in_its_metrics_whether_shares_hold_over_all_routers(server):
    async with serving(
        build_app(Reloader(QUICKSTART), {"r0": "http://127.0.0.1:9"}, tenants=open_totals(server.url, "chat"))
    ) as url:

        async def shared_is(value):
            return f"tempo_router_tenants_shared {value}\n" in await fetched(f"{url}/metrics")

        await until(lambda: shared_is(1.0))
        await server.stop()
        await until(lambda: shared_is(0.0))


async def test_what_a_request_took_is_told_to_the_other_routers(server, client, tmp_path):
    path = tmp_path / "pool.yaml"
    path.write_text(yaml.safe_dump_all([chat_class(), a_pool("ns", model=MODEL)]))
    async with FakeEngine(tokens=3).running() as engine, aiohttp.ClientSession() as session:
        app = build_app(Reloader(path), {"r0": engine.url}, tenants=open_totals(server.url, "chat"))
        async with serving(app) as url:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello."}]}
            headers = {"x-gateway-inference-fairness-id": "acme"}
            async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
                assert answer.status == 200

            async def told():
                return await client.zscore(KEY, b"+chat/acme")

            await until(told)


async def test_a_router_that_shares_nothing_says_nothing_of_it():
    async with serving(build_app(Reloader(QUICKSTART), {"r0": "http://127.0.0.1:9"})) as url:
        assert "tenants_shared" not in await fetched(f"{url}/metrics")
