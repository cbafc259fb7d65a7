"""Each way to get explorank.yaml wrong, with the line and the words that the error must have."""

from __future__ import annotations

from pathlib import Path

import pytest

from explorank.errors import ExplorankError, SettingsError
from explorank.settings import load_settings, parse_settings


def problems_of(path: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {})
    assert isinstance(caught.value, ExplorankError)
    assert isinstance(caught.value, ValueError)
    return [str(problem).removeprefix(f"{path.parent}/") for problem in caught.value.problems]


ONE_PROBLEM = {
    "misspelt key": (
        "version: 1\nexploration:\n  polcy: {use: greedy}\n",
        "explorank.yaml:3: exploration.polcy: unknown key; did you mean `policy`? Known keys: `mode`,",
    ),
    "misspelt section": (
        "version: 1\nretreival: {}\n",
        "explorank.yaml:2: retreival: unknown key; did you mean `retrieval`? Known keys: `version`,",
    ),
    "key a level too high": (
        "version: 1\nmode: live\n",
        "explorank.yaml:2: mode: unknown key here; did you mean `exploration.mode`?",
    ),
    "key within a list within a flow": (
        "version: 1\nserver: {tokens: {rnk: a}}\n",
        "explorank.yaml:2: server.tokens.rnk: unknown key; did you mean `rank`? Known keys: `rank`, `reward`,",
    ),
    "no version": (
        "project: shop\n",
        "explorank.yaml: version: is missing; it has no default. Accepted: `1`.",
    ),
    "unknown version": (
        "version: 2\n",
        "explorank.yaml:1: version: 2 is a format that this version of Explorank does not know; it knows 1.",
    ),
    "boolean version": ("version: true\n", "explorank.yaml:1: version: given `true`; accepted: `1`."),
    "text for a number": (
        'version: 1\nserver:\n  port: "8080"\n',
        "explorank.yaml:3: server.port: given the text '8080'; accepted: a whole number, at least 0, at most "
        "65535.",
    ),
    "fraction for a whole number": (
        "version: 1\nretrieval: {candidates: 1.5}\n",
        "explorank.yaml:2: retrieval.candidates: given the number 1.5; accepted: a whole number, at least 1.",
    ),
    "boolean for a number": (
        "version: 1\nexploration: {share: true}\n",
        "explorank.yaml:2: exploration.share: given `true`; accepted: a number, at least 0, at most 1.",
    ),
    "number for text": (
        "version: 1\nproject: 5\n",
        "explorank.yaml:2: project: given the number 5; accepted: text,",
    ),
    "text for a section": (
        "version: 1\nranker: lightgbm\n",
        "explorank.yaml:2: ranker: given the text 'lightgbm'; accepted: `{use: NAME, …}` or `null`.",
    ),
    "text for a list": (
        "version: 1\nguards: already_seen\n",
        "explorank.yaml:2: guards: given the text 'already_seen'; accepted: a list, each `{use: NAME, …}`.",
    ),
    "section without keys": (
        "version: 1\nretrieval:\n",
        "explorank.yaml:2: retrieval: given nothing (`null`); accepted: keys and values. Leave the key out",
    ),
    "component without a name": (
        "version: 1\nguards:\n  - {use: already_seen}\n  - {path: blocked.txt}\n",
        "explorank.yaml:4: guards[1].use: is missing; it has no default. Accepted: text, not empty.",
    ),
    "unknown mode": (
        "version: 1\nexploration: {mode: shaddow}\n",
        "accepted: `off`, `shadow`, `apprentice` or `live`. Did you mean `shadow`?",
    ),
    "out of range": (
        "version: 1\nexploration: {holdout: -0.1}\n",
        "explorank.yaml:2: exploration.holdout: given the number -0.1; accepted: a number, at least 0, at most 1.",
    ),
    "not finite": (
        "version: 1\nfeedback: {default_reward: .nan}\n",
        "explorank.yaml:2: feedback.default_reward: given the number nan; accepted: a number.",
    ),
    "negative slot": (
        "version: 1\nexploration:\n  slots:\n    - 2\n    - -1\n",
        "explorank.yaml:5: exploration.slots[1]: given the number -1; accepted: a whole number, at least 0.",
    ),
    "slots of another kind": (
        "version: 1\nexploration: {slots: some}\n",
        "given the text 'some'; accepted: `all` or a list, each a whole number, at least 0.",
    ),
    "slot twice": (
        "version: 1\nexploration: {slots: [2, 2]}\n",
        "explorank.yaml:2: exploration.slots: names a",
    ),
    "slot beyond the limit": (
        "version: 1\nlimits: {slots: 5}\nexploration:\n  slots: [2, 5]\n",
        "explorank.yaml:4: exploration.slots: slot 5 never exists: `limits.slots` is 5",
    ),
    "rule without a key": (
        "version: 1\nexploration:\n  budget:\n    candidates:\n      - {uncertainty_from: 0.2}\n      - {}\n",
        "explorank.yaml:6: exploration.budget.candidates[1]: is empty, so that every candidate could be explored.",
    ),
    "rule without a bound": (
        "version: 1\nexploration:\n  budget: {candidates: [{column: popularity}]}\n",
        "explorank.yaml:3: exploration.budget.candidates[0].column: has no bound,",
    ),
    "bound without a column": (
        "version: 1\nexploration:\n  budget: {candidates: [{below: 3}]}\n",
        "explorank.yaml:3: exploration.budget.candidates[0].below: bounds no column. Name the `column`",
    ),
    "misspelt key of a rule": (
        "version: 1\nexploration:\n  budget: {candidates: [{impresions_below: 3}]}\n",
        "candidates[0].impresions_below: unknown key; did you mean `impressions_below`?",
    ),
    "rules of another kind": (
        "version: 1\nexploration:\n  budget: {candidates: [new]}\n",
        "candidates[0]: given the text 'new'; accepted: a rule such as `{impressions_below: 1000}`.",
    ),
    "cap of nothing": (
        "version: 1\nexploration:\n  budget: {per_user_per_day: 0}\n",
        "exploration.budget.per_user_per_day: given the number 0; accepted: a whole number, at least 1 or `null`.",
    ),
    "cross of one column": (
        "version: 1\nfeatures:\n  crosses: [{name: gap, kind: ratio, of: [price]}]\n",
        "features.crosses[0].of: given a list of 1; accepted: a list of 2, each text, not empty.",
    ),
    "cross of three columns": (
        "version: 1\nfeatures:\n  crosses: [{name: gap, kind: ratio, of: [price, age, year]}]\n",
        "features.crosses[0].of: given a list of 3; accepted: a list of 2, each text, not empty.",
    ),
    "no kind of reward": (
        "version: 1\nfeedback:\n  rewards: {}\n",
        "explorank.yaml:3: feedback.rewards: names no kind of reward, so that every reward would be refused",
    ),
    "rejection that is no reward": (
        "version: 1\nexploration:\n  stability:\n    rejections: [dismiss]\n",
        "explorank.yaml:4: exploration.stability.rejections: names ['dismiss'], which `feedback.rewards` does not",
    ),
    "kept beyond the horizon": (
        "version: 1\nexploration:\n  stability: {keep_s: 100}\nfeedback: {horizon_s: 99}\n",
        "explorank.yaml:3: exploration.stability.keep_s: 100 is beyond `feedback.horizon_s` (99)",
    ),
    "everybody held out": (
        "version: 1\nexploration: {mode: live, holdout: 1}\n",
        "exploration.holdout: 1 holds all users back",
    ),
    "candidates beyond the limit": (
        "version: 1\nretrieval: {candidates: 20000}\n",
        "explorank.yaml:2: retrieval.candidates: 20000 is above `limits.candidates` (10000).",
    ),
    "ranker without retrievers": (
        "version: 1\nretrieval: {retrievers: []}\n",
        "explorank.yaml:2: retrieval.retrievers: is empty although a ranker is set",
    ),
    "budget without a baseline": (
        "version: 1\nexploration:\n  mode: live\n  holdout: 0\n  safety:\n    conservative: {}\n",
        "explorank.yaml:6: exploration.safety.conservative: cannot work: `holdout` is 0 and `share` 1, so that every "
        "user explores and nothing tells what the baseline earns. Set `holdout: 0.05` or more, or lower `share`.",
    ),
    "stop without a baseline": (
        "version: 1\nexploration:\n  mode: live\n  holdout: 0\n  safety: {stop: {drop: 0.1}}\n",
        "explorank.yaml:5: exploration.safety.stop: cannot work: `holdout` is 0 and `share` 1",
    ),
    "all may be lost": (
        "version: 1\nexploration: {safety: {conservative: {alpha: 1}}}\n",
        "exploration.safety.conservative.alpha: given the number 1; accepted: a number, above 0, below 1.",
    ),
    "guarding what nobody sends": (
        "version: 1\nfeedback: {rewards: {click: 1, order: 5}}\nexploration:\n  safety:\n    metric: orders\n",
        "explorank.yaml:5: exploration.safety.metric: `orders` is no kind of reward under `feedback.rewards`, so that "
        "nothing would ever be earned; known: `click`, `order`.",
    ),
    "earnings without a range": (
        "version: 1\nexploration:\n  safety:\n    stop: {}\n    maximum: 0\n",
        "explorank.yaml:3: exploration.safety: a decision earns at least 0 and at most 0, so that all would be worth",
    ),
    "a bound that would not hold": (
        "version: 1\nexploration:\n  stability: {keep_s: 60}\n  safety:\n    conservative: {alpha: 0.2}\n",
        "explorank.yaml:5: exploration.safety.conservative: bounds what decisions earn, and with `stability.keep_s`",
    ),
    "rewards upside down": (
        "version: 1\nfeedback:\n  rewards:\n    click:\n      minimum: 2\n",
        "explorank.yaml:5: feedback.rewards.click.minimum: 2.0 is above `maximum` (1.0)",
    ),
    "reward of another kind": (
        "version: 1\nfeedback: {rewards: {click: high}}\n",
        "given the text 'high'; accepted: a number (the weight) or the keys `weight`, `minimum` and `maximum`.",
    ),
    "time without zone": (
        "version: 1\nfeatures: {as_of: 2026-01-31T12:00:00}\n",
        "features.as_of: given the text '2026-01-31T12:00:00'; accepted: a time with its zone, such as",
    ),
    "open to the network": (
        "version: 1\nserver:\n  host: 0.0.0.0\n",
        "explorank.yaml:2: server.tokens: `host: 0.0.0.0` can be reached from other machines, so every scope "
        "needs a token; missing: rank, reward, admin.",
    ),
    "some tokens only": (
        "version: 1\nserver:\n  host: shop.example\n  tokens: {rank: r}\n",
        "explorank.yaml:4: server.tokens: `host: shop.example` can be reached from other machines, so every "
        "scope needs a token; missing: reward, admin.",
    ),
    "key twice": (
        "version: 1\nlimits:\n  slots: 3\n  slots: 4\n",
        "explorank.yaml:4: limits.slots: is given twice, first on line 3; only one of them could count.",
    ),
    "key that is no text": (
        "version: 1\nplugins: {1: {}}\n",
        "explorank.yaml:2: plugins: `1` is a key that is",
    ),
    "missing variable": (
        "version: 1\nserver: {port: {$env: SHOP_PORT}}\n",
        "explorank.yaml:2: server.port: the environment variable `SHOP_PORT` is not set.",
    ),
    "variable with surplus keys": (
        "version: 1\nserver: {port: {$env: SHOP_PORT, fallback: 1}}\n",
        "explorank.yaml:2: server.port: an environment variable is written `{$env: NAME}`",
    ),
    "foreign tag": (
        "version: 1\nproject: !!python/name:os.system x\n",
        "explorank.yaml:2: project: is no value",
    ),
    "half a surrogate pair": ('version: 1\nproject: "\\ud800"\n', "explorank.yaml:2: project: is no value"),
    "empty": ("", "explorank.yaml: the file is empty; it needs at least `version: 1`."),
    "comments only": ("# nothing\n", "explorank.yaml: the file is empty"),
    "list": ("- version\n", "explorank.yaml:1: the file must hold keys and values"),
    "syntax": (
        "version: 1\nserver: {port: 1\n",
        "explorank.yaml:3: not valid YAML (column 1): while parsing a",
    ),
    "tab": ("version: 1\nserver:\n\tport: 1\n", "explorank.yaml:3: not valid YAML (column 1):"),
    "undefined alias": ("version: 1\nserver: *there\n", "explorank.yaml:2: not valid YAML"),
    "two documents": ("version: 1\n---\nversion: 1\n", "explorank.yaml:2: not valid YAML"),
    "control character": (
        "version: 1\nproject: a\x07b\n",
        "explorank.yaml:2: holds the control character U+0007",
    ),
    "alias within itself": (
        "version: 1\nplugins: &a {x: *a}\n",
        "explorank.yaml:2: an alias (`*name`) stands",
    ),
    "alias explosion": (
        "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
        "expands to more than 100000 values.",
    ),
    "deep nesting": ("version: " + "[" * 5000 + "]" * 5000, "explorank.yaml: is nested more than 40 levels"),
    "huge number": (
        "version: " + "9" * 5000,
        "explorank.yaml:1: version: is no value that settings can hold",
    ),
}


@pytest.mark.parametrize(("text", "expected"), ONE_PROBLEM.values(), ids=list(ONE_PROBLEM))
def test_the_error_names_line_rule_and_way_out(write, text, expected):
    problems = problems_of(write(text))
    assert len(problems) == 1
    assert expected in problems[0]


def test_all_problems_come_at_once_in_the_order_of_the_file(write):
    path = write("version: 3\nfolder: 1\nlimits: {slots: 0, slot: 1}\nserver:\n  port: {$env: GONE}\n")
    assert [problem.split(": ")[:2] for problem in problems_of(path)] == [
        ["explorank.yaml:1", "version"],
        ["explorank.yaml:2", "folder"],
        ["explorank.yaml:3", "limits.slots"],
        ["explorank.yaml:3", "limits.slot"],
        ["explorank.yaml:5", "server.port"],
    ]


def test_missing_file_folder_and_wrong_encoding(tmp_path):
    assert problems_of(tmp_path / "gone.yaml") == [
        "gone.yaml: there is no such file. `explorank init` writes a commented one; or give another path."
    ]
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml: is a folder" in problems_of(tmp_path / "folder.yaml")[0]
    (tmp_path / "latin.yaml").write_bytes("version: 1\nproject: caf\u00e9\n".encode("latin-1"))
    assert "latin.yaml:2: is not UTF-8 text (byte 0xE9)" in problems_of(tmp_path / "latin.yaml")[0]
    (tmp_path / "wide.yaml").write_bytes("version: 1\n".encode("utf-16"))
    assert "wide.yaml:1: is not UTF-8 text" in problems_of(tmp_path / "wide.yaml")[0]


def test_a_byte_order_mark_is_no_problem(tmp_path):
    path = tmp_path / "marked.yaml"
    path.write_bytes(b"\xef\xbb\xbfversion: 1\n")
    assert load_settings(path).version == 1


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nserver: {tokens: {rank: 'hush hush'}}\n",
        "version: 1\nserver: {tokens: {rank: 1234567}}\n",
        "version: 1\nserver: {tokens: hush}\n",
        "version: 1\nserver: {tokens: {rank: hush, rank: hush}}\n",
        "version: 1\nserver: {tokens: {rank: hush\nreward: 'hush}}\n",
        "version: 1\nserver: {host: 0.0.0.0, tokens: {rank: hush}}\n",
        "version: 1\nserver: {port: {$env: SECRET}}\n",
        "version: 1\nproject: {$env: SECRET}\n",
    ],
)
def test_no_error_shows_a_secret(write, text):
    with pytest.raises(SettingsError) as caught:
        load_settings(write(text), {"SECRET": "hush hush"})
    assert "hush" not in str(caught.value)
    assert "1234567" not in str(caught.value)
    assert "hush" not in repr(caught.value.__cause__)


def test_settings_from_python_name_the_key_alone():
    with pytest.raises(SettingsError, match=r"settings: exploration\.slots\[0\]: given the number -1"):
        parse_settings({"version": 1, "exploration": {"slots": [-1]}})


def test_a_plugin_may_refuse_settings_in_its_own_words():
    error = SettingsError("acme: there is no colour without light. Switch it on.")
    assert str(error) == "acme: there is no colour without light. Switch it on."
    assert [problem.message for problem in error.problems] == [str(error)]
