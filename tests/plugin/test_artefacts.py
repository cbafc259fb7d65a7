"""Artefacts are published whole, refused when damaged, and taken up while readers go on reading."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from explorank.artefacts import ArtefactStore, Watched
from explorank.errors import DamagedArtefact, UnknownArtefact
from explorank.rankers import LightGBMOptions, LightGBMRanker, RankingData
from explorank.retrieval import Catalogue


def writer(text: str):
    def write(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "part.txt").write_text(text)
        (folder / "whole.txt").write_text(text * 2)

    return write


def read(folder: Path) -> str:
    text = (folder / "deep" / "part.txt").read_text()
    assert (folder / "whole.txt").read_text() == text * 2
    return text


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "artefacts")


def test_publishing_moves_the_pointer_and_keeps_the_old(store: ArtefactStore) -> None:
    assert store.current("ranker") is None
    assert store.versions("ranker") == []
    versions = [store.publish("ranker", writer(text)) for text in "abc"]
    assert store.versions("ranker") == versions == sorted(versions)
    assert len({version.rpartition("-")[2] for version in versions}) == 3
    current = store.current("ranker")
    assert current is not None
    assert (current[0], read(current[1])) == (versions[2], "c")
    assert store.current("catalogue") is None
    store.set_current("ranker", versions[0])
    assert store.current("ranker") == (versions[0], store.verify("ranker", versions[0]))


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_who_may_read_a_version_the_umask_says(store: ArtefactStore, umask: int) -> None:
    before = os.umask(umask)
    try:
        store.publish("ranker", writer("a"))
    finally:
        os.umask(before)
    made = [store.root, *store.root.rglob("*")]
    assert len(made) == 9  # the root, the kind, the version, a folder and five files
    for path in made:
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_a_failed_writer_leaves_nothing_behind(store: ArtefactStore) -> None:
    version = store.publish("ranker", writer("good"))

    def failing(folder: Path) -> None:
        writer("half")(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.publish("ranker", failing)
    with pytest.raises(DamagedArtefact, match="Nothing was written for the new ranker"):
        store.publish("ranker", lambda folder: None)
    home = store.pointer("ranker").parent
    assert sorted(path.name for path in home.iterdir()) == sorted([version, "current.json", "history.jsonl"])


@pytest.mark.parametrize("name", ["deep/part.txt", "whole.txt", "checksums.json"])
@pytest.mark.parametrize("damage", ["change", "truncate", "remove"])
def test_damage_is_named(store: ArtefactStore, name: str, damage: str) -> None:
    version = store.publish("ranker", writer("good"))
    file = store.verify("ranker", version) / name
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "truncate" else content.replace(b"o", b"0", 1))
    with pytest.raises(DamagedArtefact, match=name):
        store.verify("ranker", version)


def test_an_added_file_is_named(store: ArtefactStore) -> None:
    version = store.publish("ranker", writer("good"))
    (store.verify("ranker", version) / "extra.txt").write_text("?")
    with pytest.raises(DamagedArtefact, match=r"extra\.txt was added"):
        store.verify("ranker", version)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": "20200101T000000.000000Z-0123456789ab"}'])
def test_a_damaged_pointer_is_named(store: ArtefactStore, content: str) -> None:
    version = store.publish("ranker", writer("good"))
    store.pointer("ranker").write_text(content)
    with pytest.raises(DamagedArtefact, match=rf"current\.json.*{version}"):
        store.current("ranker")


def test_unknown_versions_and_kinds(store: ArtefactStore) -> None:
    with pytest.raises(UnknownArtefact, match="no ranker of version 'x'"):
        store.set_current("ranker", "x")
    with pytest.raises(UnknownArtefact, match="no ranker"):
        store.verify("ranker", "../../etc")
    with pytest.raises(UnknownArtefact, match="no kind"):
        store.publish("../up", writer("x"))


def test_pruning_spares_the_newest_and_the_current(store: ArtefactStore) -> None:
    versions = [store.publish("ranker", writer(str(number))) for number in range(5)]
    store.set_current("ranker", versions[0])
    fresh, stale = (store.pointer("ranker").parent / f".draft-{name}" for name in ("fresh", "stale"))
    for draft in (fresh, stale):
        draft.mkdir()
    os.utime(stale, (0, 0))
    assert store.prune("ranker", keep=2) == versions[1:3]
    assert store.versions("ranker") == [versions[0], *versions[3:]]
    assert fresh.exists()
    assert not stale.exists()
    assert store.prune("ranker", keep=0) == versions[3:4]
    assert store.roll_back("ranker") == versions[4], "the one to go back to is spared"


# ---- what is current, and was -----------------------------------------------------------------------------


def test_a_version_may_be_published_without_becoming_current(store: ArtefactStore) -> None:
    aside = store.publish("ranker", writer("first"), promote=False)
    assert store.current("ranker") is None
    assert store.versions("ranker") == [aside]
    current = store.publish("ranker", writer("second"))
    aside = store.publish("ranker", writer("third"), promote=False)
    watched = Watched(store, "ranker", read)
    assert watched.version == current
    store.set_current("ranker", aside)
    assert watched.refresh()
    assert watched.get() == "third"


def test_going_back_retraces_what_was_current(store: ArtefactStore) -> None:
    a, b, c, d = (store.publish("ranker", writer(text)) for text in "abcd")
    store.set_current("ranker", b)
    assert store.previous("ranker") == d
    assert [store.roll_back("ranker") for _ in range(4)] == [d, c, b, a]
    with pytest.raises(UnknownArtefact, match="nothing to go back to"):
        store.roll_back("ranker")
    store.set_current("ranker", d)
    assert store.roll_back("ranker") == a, "what was rolled back is no longer before"
    assert [promotion.action for promotion in store.history("ranker")] == [
        *["publish"] * 4, "promote", *["rollback"] * 4, "promote", "rollback",
    ]  # fmt: skip
    # One that was current twice is gone back to once.
    store.set_current("ranker", c)
    store.set_current("ranker", c)
    assert store.roll_back("ranker") == a


@pytest.mark.parametrize("left", [b"", b'{"version": "2026', b"[1]\n"])
def test_a_line_of_the_history_that_a_crash_cut_short_costs_nothing(
    store: ArtefactStore, left: bytes
) -> None:
    a, b = (store.publish("ranker", writer(text)) for text in "ab")
    with (store.pointer("ranker").parent / "history.jsonl").open("ab") as history:
        history.write(left)
    assert store.previous("ranker") == a
    c = store.publish("ranker", writer("c"))
    assert [promotion.version for promotion in store.history("ranker")] == [a, b, c]
    assert store.roll_back("ranker") == b


def test_a_promotion_that_was_noted_and_not_made_is_no_step_back(store: ArtefactStore) -> None:
    a, b = (store.publish("ranker", writer(text)) for text in "ab")
    c = store.publish("ranker", writer("c"), promote=False)
    history = store.pointer("ranker").parent / "history.jsonl"
    line = {"version": c, "time": "2026-01-01T00:00:00+00:00", "action": "promote"}
    with history.open("a") as file:
        file.write(json.dumps(line) + "\n")
    assert store.current("ranker") == (b, store.verify("ranker", b))
    assert store.roll_back("ranker") == a


def test_what_was_deleted_is_passed_over(store: ArtefactStore) -> None:
    a, b, c = (store.publish("ranker", writer(text)) for text in "abc")
    shutil.rmtree(store.verify("ranker", b))
    assert store.roll_back("ranker") == a
    assert c in store.versions("ranker")


def test_versions_are_found_by_what_is_unambiguous(store: ArtefactStore) -> None:
    a, b = (store.publish("ranker", writer(text)) for text in "ab")
    of_a = a.rpartition("-")[2]
    assert store.resolve("ranker", a) == store.resolve("ranker", of_a[:6]) == a
    assert store.resolve("ranker", b[:22]) == b
    with pytest.raises(UnknownArtefact, match=f"fits 2 versions of the ranker: {a}, {b}"):
        store.resolve("ranker", "20")
    misspelt = of_a[:-2] + "xx"
    with pytest.raises(UnknownArtefact, match=f"Did you mean '{a}'"):
        store.resolve("ranker", misspelt)
    with pytest.raises(UnknownArtefact, match="There are: "):
        store.resolve("ranker", "")


def test_watching_takes_up_what_is_published(store: ArtefactStore) -> None:
    watched = Watched(store, "ranker", read)
    assert (watched.get(), watched.version, watched.error) == (None, None, None)
    assert watched.refresh() is False
    version = store.publish("ranker", writer("one"))
    assert watched.get() is None
    assert watched.refresh() is True
    assert (watched.get(), watched.version) == ("one", version)
    assert watched.refresh() is False
    store.publish("ranker", writer("two"))
    assert watched.refresh() is True
    store.set_current("ranker", version)
    assert watched.refresh() is True
    assert watched.get() == "one"


def test_what_is_held_may_be_changed_until_another_is_taken_up(store: ArtefactStore) -> None:
    watched = Watched(store, "ranker", read)
    watched.change(str.upper)
    assert watched.get() is None
    version = store.publish("ranker", writer("a"))
    watched.refresh()
    watched.change(str.upper)
    assert (watched.get(), watched.version) == ("A", version)
    assert not watched.refresh()
    assert watched.get() == "A"
    store.publish("ranker", writer("b"))
    assert watched.refresh()
    assert watched.get() == "b"


def test_the_last_good_one_stays_until_a_better_one_comes(store: ArtefactStore) -> None:
    store.publish("ranker", writer("good"))
    watched = Watched(store, "ranker", read)
    bad = store.publish("ranker", writer("bad"))
    (store.verify("ranker", bad) / "whole.txt").write_text("damaged")
    assert watched.refresh() is False
    assert watched.get() == "good"
    assert "whole.txt is damaged" in str(watched.error)
    assert watched.refresh() is False
    store.publish("ranker", writer("better"))
    assert watched.refresh() is True
    assert (watched.get(), watched.error) == ("better", None)
    store.pointer("ranker").write_text("not JSON")
    assert watched.refresh() is False
    assert watched.get() == "better"
    assert "current.json cannot be read" in str(watched.error)


def test_a_loader_that_raises_does_not_take_the_artefact_away(store: ArtefactStore) -> None:
    def load(folder: Path) -> str:
        if read(folder) == "indigestible":
            raise RuntimeError("no")
        return read(folder)

    first = store.publish("ranker", writer("good"))
    watched = Watched(store, "ranker", load)
    store.publish("ranker", writer("indigestible"))
    watched.refresh()
    assert (watched.get(), str(watched.error)) == ("good", "no")
    store.set_current("ranker", first)
    watched.refresh()
    assert (watched.get(), watched.error) == ("good", None)


def test_starting_on_a_damaged_version_takes_the_newest_intact_one(store: ArtefactStore) -> None:
    versions = [store.publish("ranker", writer(text)) for text in ("oldest", "intact", "damaged", "newest")]
    for version in versions[2:]:
        (store.verify("ranker", version) / "whole.txt").unlink()
    watched = Watched(store, "ranker", read)
    assert (watched.get(), watched.version) == ("intact", versions[1])
    assert versions[3] in str(watched.error)
    for version in versions[:2]:
        (store.verify("ranker", version) / "whole.txt").unlink()
    assert Watched(store, "ranker", read).get() is None


def test_readers_see_whole_versions_while_others_publish(store: ArtefactStore) -> None:
    store.publish("ranker", writer("0"))
    watched = Watched(store, "ranker", read)
    seen: set[str | None] = set()
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            watched.refresh()
            seen.add(watched.get())

    readers = [threading.Thread(target=serve) for _ in range(2)]
    writers = [
        threading.Thread(
            target=lambda name=name: [store.publish("ranker", writer(f"{name}{n}")) for n in range(8)]
        )
        for name in "ab"
    ]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    watched.refresh()
    assert watched.error is None
    assert watched.get() in {"a7", "b7"}
    assert seen <= {"0", *(f"{name}{n}" for name in "ab" for n in range(8))}
    assert len(store.versions("ranker")) == 17


def test_killing_a_publisher_never_leaves_a_broken_current(store: ArtefactStore, tmp_path: Path) -> None:
    code = (
        "import sys; from explorank.artefacts import ArtefactStore; store = ArtefactStore(sys.argv[1]); n = 0\n"
        "def write(folder):\n"
        "    for part in range(20): (folder / f'{part}.txt').write_text(str(n) * 5_000)\n"
        "print('ready', flush=True)\n"
        "while True: store.publish('ranker', write); n += 1"
    )
    for delay in (0.03, 0.11):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(store.root)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(delay)
            process.kill()
        for version in store.versions("ranker"):
            store.verify("ranker", version)
        current = store.current("ranker")
        assert current is None or current[1].is_dir()


def test_a_catalogue_and_a_ranker_travel_through_the_store(store: ArtefactStore) -> None:
    catalogue = Catalogue.build(["a", "b"], [[1, 0], [0, 1]])
    rows = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    data = RankingData(features=rows, labels=rows[:, 0] > 0, feature_names=("x", "y"))
    ranker = LightGBMRanker.fit(data, options=LightGBMOptions(objective="binary", rounds=3))
    store.publish("catalogue", catalogue.save)
    store.publish("ranker", ranker.save)
    served = Watched(store, "catalogue", Catalogue.load).get()
    assert served is not None
    assert served.version == catalogue.version
    scorer = Watched(store, "ranker", LightGBMRanker.load).get()
    assert scorer is not None
    np.testing.assert_array_equal(scorer.score(rows), ranker.score(rows))
    pointer = json.loads(store.pointer("ranker").read_text())
    assert list(pointer) == ["version"]
