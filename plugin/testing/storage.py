"""Whether a state comes back from a file as it was, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from explorank.hooks import arrays
from explorank.hooks.errors import CorruptState
from explorank.hooks.exploration import build_slate
from explorank.testing.cases import PolicyCases
from explorank.testing.demands import demand, refused


class StorageTests(PolicyCases):
    """The part of `PolicyTests` about `save`, `load`, `pack` and `unpack`."""

    def test_a_saved_state_is_the_same_state(self, tmp_path: Path) -> None:
        """What `load` returns ranks alike, to the last bit, learns alike, and is saved as the same bytes.

        A learner that takes over goes on from the file; a decision made before the restart must be
        replayable after it.
        """
        policy = self.make_policy()
        batch, more = self.make_batch(policy, 6), self.rewards(policy, 9)
        for name, state in (("initial", policy.initial_state()), ("learnt", self.make_state(policy))):
            path = tmp_path / name
            policy.save(state, path)
            loaded = policy.load(path)
            demand(
                loaded.version == state.version,
                f"{policy.name} saved version {state.version} and loaded {loaded.version}.",
            )
            demand(
                policy.dumps(loaded) == path.read_bytes(),
                f"{policy.name} saves a loaded state as other bytes; `pack` and `unpack` lose something.",
            )
            for seed in range(self.few_seeds):
                before, after = (build_slate(policy, one, batch, 4, seed=seed) for one in (state, loaded))
                demand(
                    before.order.tolist() == after.order.tolist()
                    and before.propensities.tolist() == after.propensities.tolist(),
                    f"{policy.name}, seed {seed}, drew {before.order} with {before.propensities} before "
                    f"saving and {after.order} with {after.propensities} after loading; `pack` must hold "
                    "all that `contest` reads.",
                )
            demand(
                policy.dumps(policy.learn(loaded, more)) == policy.dumps(policy.learn(state, more)),
                f"{policy.name} learns something else from a loaded state; `pack` must hold all that "
                "`learn` reads.",
            )

    def test_a_damaged_file_is_refused(self, tmp_path: Path) -> None:
        """A flipped bit anywhere, a missing end, an empty file and noise raise `CorruptState`.

        Wrong numbers would be learnt on and shown. The checksum of `dumps` sees to it; this fails for a
        policy that writes its files in a way of its own.
        """
        policy = self.make_policy()
        path = tmp_path / "state"
        policy.save(self.make_state(policy), path)
        intact = path.read_bytes()
        damaged = [intact[:-9], intact[: len(intact) // 2], b"", b"\x00" * 64, intact + b"\x00"]
        for position in range(0, len(intact), max(1, len(intact) // 20)):
            flipped = bytearray(intact)
            flipped[position] ^= 1
            damaged.append(bytes(flipped))
        for data in damaged:
            path.write_bytes(data)
            with refused(CorruptState, f"{policy.name} loaded {len(data)} damaged bytes as a state."):
                policy.load(path)

    def test_a_foreign_state_is_refused(self) -> None:
        """The state of another policy, or of one with another `dim`, raises `CorruptState`.

        Its numbers mean something else there.
        """
        policy = self.make_policy()
        meta, packed = policy.pack(self.make_state(policy))
        foreign = arrays.dumps({"policy": f"not_{policy.name}", "state": meta}, packed)
        with refused(CorruptState, f"{policy.name} loaded the state of another policy."):
            policy.loads(foreign)
        options = vars(policy)
        if policy.needs_features and "dim" in options:
            wider: dict[str, Any] = {"dim": options["dim"] + 1}
            with refused(CorruptState, f"{policy.name} loaded a state of another `dim`; check the shapes."):
                replace(policy, **wider).loads(policy.dumps(self.make_state(policy)))

    def test_an_incomplete_state_is_refused(self) -> None:
        """A state without its version, or without any one of its arrays, raises `CorruptState`.

        The checksum cannot tell: such bytes were written by another release.
        """
        policy = self.make_policy()
        meta, packed = policy.pack(self.make_state(policy))
        demand(
            meta.get("version") == 1,
            f"`pack` of {policy.name} gives {meta} for a state of version 1; keep `version` in it.",
        )
        unversioned = {name: value for name, value in meta.items() if name != "version"}
        with refused(CorruptState, f"{policy.name} made a state without a version."):
            policy.unpack(unversioned, packed)
        for name in packed:
            rest = {other: array for other, array in packed.items() if other != name}
            with refused(CorruptState, f"{policy.name} made a state without the array `{name}`."):
                policy.unpack(meta, rest)
