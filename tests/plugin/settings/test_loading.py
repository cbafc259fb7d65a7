from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from explorank.errors import SettingsError
from explorank.settings import Settings, load_settings, parse_settings, template
from explorank.settings.sections import RewardKind

TEMPLATE = template()


def test_the_version_alone_is_enough(write):
    loaded = load_settings(write("version: 1\n"))
    assert loaded.exploration.mode == "shadow"
    assert [retriever.use for retriever in loaded.retrieval.retrievers] == [
        "similar_to_history",
        "popular",
        "new_items",
    ]
    assert loaded.features is None
    assert loaded.ranker is not None
    assert loaded.fingerprint == Settings(version=1).fingerprint


def test_the_template_loads_and_explains_every_section(write):
    loaded = load_settings(write(TEMPLATE))
    assert loaded.features is not None
    assert loaded.exploration.policy.options == {"floor": 0.02}
    lines = TEMPLATE.splitlines()
    for section in Settings.model_fields:
        starts = [number for number, line in enumerate(lines) if line.startswith(f"{section}:")]
        assert len(starts) == 1, f"the template lacks {section}"
        assert lines[starts[0] - 1].startswith("#"), f"the template does not explain {section}"


def test_scalars_are_read_as_editors_read_them(write):
    loaded = load_settings(
        write(
            "version: 0x1\nproject: no\nexploration: {mode: off, share: 1e-2}\n"
            "features: {as_of: 2026-01-31T12:00:00Z}\nfeedback: {default_reward: -1}\n"
        )
    )
    assert loaded.project == "no"
    assert loaded.exploration.mode == "off"
    assert loaded.exploration.share == 0.01
    assert loaded.features is not None
    assert loaded.features.as_of == dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
    assert isinstance(loaded.feedback.default_reward, float)


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "explorank.yaml").write_text("version: 1\nfolder: state\nfeatures: {}\n")
    monkeypatch.chdir(tmp_path)
    loaded = load_settings("shop/explorank.yaml")
    monkeypatch.chdir("/")
    assert loaded.source == tmp_path / "shop" / "explorank.yaml"
    assert loaded.folder_path == tmp_path / "shop" / "state"
    assert loaded.repository_path == tmp_path / "shop" / "feature_repo"
    assert loaded.path("/elsewhere/x") == Path("/elsewhere/x")
    assert parse_settings({"version": 1}, tmp_path).folder_path == tmp_path / ".explorank"


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Settings(version=1).exploration.mode = "live"


def test_a_reward_may_be_its_weight_alone():
    loaded = parse_settings({"version": 1, "feedback": {"rewards": {"click": 2, "sale": {"maximum": 500}}}})
    assert loaded.feedback.rewards == {"click": RewardKind(weight=2.0), "sale": RewardKind(maximum=500.0)}


def test_anchors_and_merges(write):
    loaded = load_settings(
        write(
            "version: 1\nguards:\n  - &list {use: block_list, items: [a]}\n"
            "  - {<<: *list, items: [b]}\n  - *list\n"
        )
    )
    assert [guard.options["items"] for guard in loaded.guards] == [["a"], ["b"], ["a"]]


class TestEnvironment:
    def test_a_value_takes_the_type_that_its_key_accepts(self, write):
        path = write(
            "version: {$env: V}\nproject: {$env: P}\nserver: {port: {$env: PORT}, tokens: {rank: {$env: T}}}\n"
            "exploration: {slots: [{$env: S}], features: {$env: STAR}}\n"
        )
        loaded = load_settings(path, {"V": "1", "P": "2024", "PORT": "9", "T": "12", "S": "4", "STAR": "*"})
        assert loaded.project == "2024"
        assert loaded.server.port == 9
        assert loaded.server.tokens.rank is not None
        assert loaded.server.tokens.rank.get_secret_value() == "12"
        assert loaded.exploration.slots == (4,)
        assert loaded.exploration.features == "*"

    def test_a_default_stands_in_for_a_missing_variable(self, write):
        path = write(
            "version: 1\nserver: {port: {$env: PORT, default: 7}}\nranker: {$env: R, default: null}\n"
        )
        assert load_settings(path, {}).server.port == 7
        assert load_settings(path, {"PORT": "8"}).server.port == 8
        assert load_settings(path, {}).ranker is None

    def test_secrets_are_not_shown(self, write):
        path = write(
            "version: 1\nserver: {tokens: {rank: hush, admin: {$env: S}}}\n"
            "exploration: {policy: {use: acme, key: {$env: S}}}\nplugins: {acme: {options: {keys: [{$env: S}]}}}\n"
        )
        loaded = load_settings(path, {"S": "hush2"})
        assert "hush" not in repr(loaded)
        assert "hush" not in loaded.model_dump_json()
        assert loaded.plugins["acme"].options["keys"][0].get_secret_value() == "hush2"
        assert loaded.fingerprint == load_settings(path, {"S": "another"}).fingerprint


def test_the_fingerprint_is_of_effective_values(write):
    bare = parse_settings({"version": 1}).fingerprint
    spelt_out = {"version": 1, "exploration": {"share": 1, "holdout": 0.05}, "ranker": {"use": "lightgbm"}}
    assert parse_settings(spelt_out).fingerprint == bare
    assert parse_settings({"version": 1, "server": {"tokens": {"rank": "x"}}}).fingerprint == bare
    assert parse_settings({"version": 1, "exploration": {"share": 0.5}}).fingerprint != bare
    policy = {"version": 1, "exploration": {"policy": {"use": "epsilon_greedy", "epsilon": 0.2}}}
    assert parse_settings(policy).fingerprint != bare
    assert len(bare) == 16


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_tokens(host):
    assert parse_settings({"version": 1, "server": {"host": host}}).server.host == host


@pytest.mark.parametrize("tokens", [{"admin": "a"}, {"rank": "r", "reward": "w", "admin": "a"}])
def test_tokens_open_the_network(tokens):
    server = {"host": "0.0.0.0", "tokens": tokens}  # noqa: S104 - what the rule is about
    assert parse_settings({"version": 1, "server": server}).server.tokens.admin is not None


PIECES = st.sampled_from("{}[]:-#|%@?'\"&\n\t\x00\u00e9\ud7ff") | st.sampled_from(
    [
        ": ",
        "- ",
        "\n  ",
        "&a ",
        "*a ",
        "<<: *a",
        "!!int ",
        "!x ",
        "---\n",
        "null",
        "-1",
        "1e999",
        "{$env: HOME}",
    ]
)
EDITS = st.tuples(
    st.integers(0, len(TEMPLATE)), st.integers(0, 12), st.just("") | PIECES | st.text(max_size=3)
)


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(EDITS, min_size=1, max_size=5), st.booleans())
def test_whatever_the_file_holds_it_is_loaded_or_refused(tmp_path, edits, bare):
    # Comments are stripped in half of the trials, or most edits would vanish in them.
    text = TEMPLATE
    if bare:
        text = "\n".join(line.split("#")[0] for line in text.splitlines() if line.split("#")[0].strip())
    for start, length, piece in edits:
        text = text[:start] + piece + text[start + length :]
    path = tmp_path / "explorank.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        loaded = load_settings(path, {"HOME": "somewhere"})
    except SettingsError:
        return
    assert loaded.version == 1
