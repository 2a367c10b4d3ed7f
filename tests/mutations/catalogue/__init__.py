"""Every guard that is taken out, one file a subject. A new guard: a line in its subject's file, or
a new file named here.
"""

from tests.mutations.catalogue import agent, commit, endings, fence, movement, router, session, sql

MUTATIONS = (
    *fence.MUTATIONS,
    *sql.MUTATIONS,
    *commit.MUTATIONS,
    *endings.MUTATIONS,
    *movement.MUTATIONS,
    *router.MUTATIONS,
    *session.MUTATIONS,
    *agent.MUTATIONS,
)
