"""What a key's grant makes of a request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.access import MANIFEST
from tempo_api.intake import Grant, resolve
from tempo_api.manifest import build_pool, load_manifests
from tempo_api.openai import APIError, Ending
from tempo_core.programs import Programs

POOL = build_pool(
    load_manifests(MANIFEST.replace("spec: {model", "spec: {router: {serviceTiers: {flex: batch}}, model"))
)
"""Its classes are chat, the default, and batch."""


def granted(grant, headers=None, **body):
    return resolve(headers or {}, body, POOL, Programs(), 0.0, grant)


def test_without_keys_every_class_may_be_used():
    assert granted(Grant()).slo.name == "chat"
    assert granted(Grant(), {"x-tempo-slo-class": "batch"}).slo.name == "batch"


@pytest.mark.parametrize(
    ("classes", "served"),
    [(("batch",), "batch"), (("batch", "chat"), "batch"), (("gone", "chat"), "chat"), (None, "chat")],
)
def test_a_request_without_a_class_gets_the_first_of_its_key_s_that_the_pool_serves(classes, served):
    assert granted(Grant("a", classes)).slo.name == served


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"x-tempo-slo-class": "batch"}, {}),
        ({"x-gateway-inference-objective": "batch"}, {}),
        ({}, {"service_tier": "flex"}),
    ],
)
def test_a_class_that_the_key_may_not_use_is_refused_however_it_is_asked_for(headers, body):
    with pytest.raises(APIError) as caught:
        granted(Grant("a", ("chat",)), headers, **body)
    assert (caught.value.ending, caught.value.ending.status) == (Ending.CLASS_NOT_ALLOWED, 403)
    assert caught.value.message == "This API key may not use the class 'batch'; it may use chat."


def test_a_key_whose_classes_the_pool_does_not_serve_is_told_so():
    with pytest.raises(APIError, match="may use no class that this pool serves"):
        granted(Grant("a", ("gone",)))


def test_a_class_that_is_not_there_is_a_mistake_and_not_forbidden():
    with pytest.raises(APIError, match="is no class of this pool"):
        granted(Grant("a", ("chat",)), {"x-tempo-slo-class": "cat"})


CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "x-llm-d-inference-fairness-id": st.just("team-b"),
        "x-gateway-inference-fairness-id": st.just("team-b"),
        "authorization": st.just("Bearer sk-other"),
    },
)


@given(CLAIMS, st.sampled_from([{}, {"user": "team-b"}]))
def test_whatever_a_request_claims_its_tenant_is_its_key_s(headers, body):
    assert granted(Grant("team-a"), headers, **body).intake.tenant == "team-a"
