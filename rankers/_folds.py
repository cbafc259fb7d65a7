"""Which requests are judged together by members that saw none of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining


def folds_of(data: RankingData, folds: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return the fold of each request, (g,) from 0 to `folds` - 1, drawn by `random`.

    Where it is known whose requests they are, all of a user's are in one fold (group k-fold): a member that was trained
    on some of them knows the user's taste, and its scores of the others would be better than those of anybody new. The
    largest users are placed first, each in the fold with the fewest requests. Raises `InvalidTraining` for fewer than
    two requests a fold, and for fewer users than folds.
    """
    requests = data.requests
    if requests < 2 * folds:
        raise InvalidTraining(
            f"{requests} requests cannot be cut into {folds} folds of two or more, on which members are judged by "
            "what they have not seen. Bring more requests, or fewer `folds`."
        )
    if data.user_ids is None:
        return random.permutation(requests) % folds
    users, user_of, sizes = _users_of(data.user_ids)
    if users < folds:
        raise InvalidTraining(
            f"The requests are those of {users} users, who cannot be cut into {folds} folds: members would be judged "
            "on users whose taste they have learnt. Bring more users, or fewer `folds`."
        )
    shuffled = random.permutation(users)
    largest_first = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    fold_of, filled = np.empty(users, np.int64), np.zeros(folds, np.int64)
    for user in largest_first.tolist():
        fold = int(filled.argmin())
        fold_of[user] = fold
        filled[fold] += sizes[user]
    return fold_of[user_of]


def _users_of(user_ids: NDArray[np.str_]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Return how many users there are, whose each request is, and each user's requests; empty ids are all different."""
    known = user_ids != ""
    names, of_known = np.unique(user_ids[known], return_inverse=True)
    user_of = np.empty(len(user_ids), np.int64)
    user_of[known] = of_known
    user_of[~known] = len(names) + np.arange(len(user_ids) - len(of_known))
    sizes = np.bincount(user_of)
    return len(sizes), user_of, sizes
