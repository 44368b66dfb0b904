"""The compiled configuration, and following the manifests while the pool runs."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from support.local import MANIFESTS
from tempo_api.manifest import ManifestError, load_pool
from tempo_operator.local.config import FIXED, Wishes, compile_config, keep_fixed, read_config, write_atomically
from tempo_operator.local.follow import Follower

SECOND = "\n---\n" + MANIFESTS.split("---")[-1].replace("small", "second")


def compiled(text=MANIFESTS, **wishes):
    return compile_config(text, "pool.yaml", Wishes(**wishes))


def test_the_compiled_file_is_read_back_as_the_same_pool(tmp_path):
    config = compiled()
    (tmp_path / "config.yaml").write_text(config.text)
    assert load_pool(tmp_path / "config.yaml") == config.pool


def test_wishes_replace_what_the_manifests_say():
    pool = compiled(model="other", replicas=3, policy="fcfs").pool
    assert (pool.spec.model, pool.replicas, pool.spec.scheduler.policy) == ("other", 3, "fcfs")


def test_a_wish_for_replicas_replaces_autoscaling():
    text = MANIFESTS.replace("replicas: 2", "autoscaling: {minReplicas: 2, maxReplicas: 4}")
    assert compiled(text).pool.replicas == 2
    assert compiled(text, replicas=1).pool.replicas == 1


def test_only_the_chosen_pool_is_compiled():
    config = compiled(MANIFESTS + SECOND, pool="second")
    assert config.pool.name == "second"
    assert "name: small" not in config.text


@pytest.mark.parametrize(
    ("text", "wishes", "message"),
    [
        (MANIFESTS + SECOND, {}, "pool.yaml: exactly one TempoPool is needed, found small, second"),
        (MANIFESTS, {"pool": "absent"}, "pool.yaml: exactly one TempoPool is needed, found none"),
        (MANIFESTS.replace("weight: 0.5", "weight: -1"), {}, "pool.yaml: SLOClass batch: spec.gain.weight"),
        (MANIFESTS, {"model": ""}, "pool.yaml: TempoPool small: spec.model"),
        ("a: [", {}, "pool.yaml: not YAML"),
        ("", {}, "pool.yaml: exactly one TempoPool is needed"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_begins_with_the_file(text, wishes, message):
    with pytest.raises(ManifestError) as caught:
        compiled(text, **wishes)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_manifest_error(tmp_path):
    with pytest.raises(ManifestError, match="can't be read: No such file"):
        read_config(tmp_path / "absent.yaml", Wishes())
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ManifestError, match="not text in UTF-8"):
        read_config(tmp_path / "binary.yaml", Wishes())


@settings(max_examples=20, deadline=None)
@given(st.sets(st.sampled_from(["model: other", "servedModelName: alias", "replicas: 5", "engine: {args: []}"])))
def test_whatever_changes_in_the_manifests_the_processes_stay_as_they_are(lines):
    changed = {line.partition(":")[0]: yaml.safe_load(line.partition(":")[2]) for line in lines}
    documents = list(yaml.safe_load_all(MANIFESTS))
    documents[2]["spec"] |= changed
    documents[0]["spec"]["gain"] = {"weight": 9}
    running = compiled()
    config, told = keep_fixed(compiled(yaml.safe_dump_all(documents)), running)
    kept = [name for name in FIXED if "." not in name]
    assert {name: config.spec.get(name) for name in kept} == {name: running.spec.get(name) for name in kept}
    assert set(told) == {f"spec.{name}" for name in changed}
    assert config.pool.classes["chat"].gain.weight == 9


def test_a_pool_that_begins_to_ask_for_keys_goes_on_without_until_it_is_started_anew():
    changed = MANIFESTS + "  router: {auth: {secretRef: {name: s}}, maxBodyBytes: 5}\n"
    config, told = keep_fixed(compiled(changed), compiled())
    assert told == ["spec.router.auth"]
    assert (config.pool.spec.router.auth, config.pool.spec.router.max_body_bytes) == (None, 5)


class Edited:
    """A follower of a file, and what the pool reads."""

    def __init__(self, folder):
        self.source, self.target = folder / "pool.yaml", folder / "config.yaml"
        self.source.write_text(MANIFESTS)
        config = read_config(self.source, Wishes(replicas=1))
        write_atomically(self.target, config.text)
        self.follower = Follower(self.source, Wishes(replicas=1), config, self.target)

    def edit(self, old, new):
        self.source.write_text(self.source.read_text().replace(old, new))

    def polls(self):
        return [line for _ in range(3) for line in self.follower.poll()]


@pytest.fixture
def edited(tmp_path):
    return Edited(tmp_path)


def test_an_unchanged_file_is_left_alone(edited):
    assert edited.polls() == []


def test_a_good_change_reaches_the_running_pool_with_the_wishes_kept(edited):
    edited.edit("ttft: 2s", "ttft: 1s")
    assert edited.polls() == ["pool.yaml: taken over"]
    pool = load_pool(edited.target)
    assert pool.classes["chat"].objectives.ttft_s == 1.0
    assert pool.replicas == 1


def test_a_change_is_taken_over_only_once_it_has_settled(edited):
    edited.edit("ttft: 2s", "ttft: 1s")
    assert edited.follower.poll() == []
    edited.edit("tbt: 150ms", "tbt: 80ms")
    assert edited.follower.poll() == []
    assert edited.follower.poll() == ["pool.yaml: taken over"]


def test_a_bad_change_is_told_once_and_leaves_the_pool_as_it_was(edited):
    before = edited.target.read_text()
    edited.edit("weight: 0.5", "weight: -1")
    (line,) = edited.polls()
    assert line.startswith("pool.yaml: SLOClass batch: spec.gain.weight")
    assert line.endswith("the pool keeps its last good configuration")
    assert edited.target.read_text() == before


def test_a_good_change_after_a_bad_one_is_taken_over(edited):
    edited.edit("weight: 0.5", "weight: -1")
    edited.polls()
    edited.edit("weight: -1", "weight: 4")
    assert edited.polls() == ["pool.yaml: taken over"]
    assert load_pool(edited.target).classes["batch"].gain.weight == 4


def test_a_change_of_the_engine_asks_for_a_restart_and_the_rest_is_taken_over(edited):
    edited.edit("--max-model-len=512", "--max-model-len=1024")
    edited.edit("ttft: 2s", "ttft: 1s")
    assert edited.polls() == [
        "pool.yaml: spec.engine needs a restart of tempo up; it stays as it was",
        "pool.yaml: taken over",
    ]
    pool = load_pool(edited.target)
    assert pool.spec.engine.args == ["--max-model-len=512"]
    assert pool.classes["chat"].objectives.ttft_s == 1.0


def test_a_file_that_goes_away_is_told_once_and_its_return_taken_over(edited):
    text = edited.source.read_text()
    edited.source.unlink()
    assert edited.polls() == ["pool.yaml can't be read; the pool keeps its last good configuration"]
    edited.source.write_text(text)
    assert edited.polls() == ["pool.yaml: taken over"]
