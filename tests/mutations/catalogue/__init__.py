"""Every guard that is taken out, one file a subject. A new guard: a line in its subject's file, or
a new file named here.
"""

from tests.mutations.catalogue import (
    agent,
    commit,
    endings,
    exclusive,
    fence,
    leaving,
    movement,
    planned,
    pods,
    residency,
    router,
    session,
    sql,
)

MUTATIONS = (
    *fence.MUTATIONS,
    *sql.MUTATIONS,
    *commit.MUTATIONS,
    *endings.MUTATIONS,
    *movement.MUTATIONS,
    *planned.MUTATIONS,
    *exclusive.MUTATIONS,
    *pods.MUTATIONS,
    *residency.MUTATIONS,
    *router.MUTATIONS,
    *session.MUTATIONS,
    *agent.MUTATIONS,
    *leaving.MUTATIONS,
)
