import asyncio
import logging
import os

import pytest

from support.serving import QUICKSTART
from tempo_api.manifest import ManifestError
from tempo_api.reload import Reloader

GOOD = QUICKSTART.read_text()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "pool.yaml"
    path.write_text(GOOD)
    return path


def test_an_unchanged_file_is_not_read_again(path):
    reloader = Reloader(path)
    assert reloader.poll() is None
    assert reloader.reloads == 0


def test_a_good_change_is_taken_over(path):
    reloader = Reloader(path)
    path.write_text(GOOD.replace("ttft: 2s", "ttft: 3s"))
    pool = reloader.poll()
    assert pool is reloader.pool
    assert pool.classes["chat"].objectives.ttft_s == 3.0
    assert reloader.poll() is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text.replace("ttft: 2s", "ttft: soon"), "spec.objectives.ttft"),
        (lambda text: text + "\n  bad: [", "not YAML"),
        (lambda text: "", "TempoPool"),
    ],
)
def test_a_bad_change_is_logged_in_one_line_and_once_and_the_last_good_pool_goes_on(path, caplog, damage, said):
    reloader = Reloader(path)
    before = reloader.pool
    path.write_text(damage(GOOD))
    with caplog.at_level(logging.ERROR):
        assert reloader.poll() is None
        assert reloader.poll() is None
    assert [said in record.getMessage() and "\n" not in record.getMessage() for record in caplog.records] == [True]
    assert reloader.pool is before
    assert reloader.failures == 1


def test_a_file_that_vanishes_and_comes_back_is_followed(path):
    reloader = Reloader(path)
    path.unlink()
    assert reloader.poll() is None
    path.write_text(GOOD)
    assert reloader.poll() is not None


def test_a_swapped_link_as_in_a_configmap_is_noticed(tmp_path):
    for name, ttft in (("one", "2s"), ("two", "4s")):
        (tmp_path / name).write_text(GOOD.replace("ttft: 2s", f"ttft: {ttft}"))
        os.utime(tmp_path / name, ns=(1, 1))
    link = tmp_path / "pool.yaml"
    link.symlink_to("one")
    reloader = Reloader(link)
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(link)
    assert reloader.poll().classes["chat"].objectives.ttft_s == 4.0


def test_there_is_nothing_to_go_on_with_if_the_first_file_is_bad(path):
    path.write_text("kind: Nonsense")
    with pytest.raises(ManifestError):
        Reloader(path)


async def test_watching_tells_of_each_new_configuration(path):
    reloader, seen = Reloader(path), asyncio.Queue()
    watch = asyncio.create_task(reloader.watch(seen.put_nowait, interval_s=0.01))
    path.write_text(GOOD.replace("ttft: 2s", "ttft: 3s"))
    async with asyncio.timeout(5):
        assert (await seen.get()).classes["chat"].objectives.ttft_s == 3.0
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch
