"""Where data may lie: asked before work is placed, bytes are copied, values and logs are told."""

from tests.mutations.mutation import Mutation

MUTATIONS = (
    Mutation(
        "place_regions", "I9", "No cluster outside the allowed regions is chosen.",
        file="router/rules.py", within="residency",
        old="if not allowed or name in allowed:", new="if True:",
        tests=("tests/router/test_placement.py::test_each_must_rule_refuses",),
    ),
    Mutation(
        "launch_regions", "I9", "A run may only lie where each of its inputs may.",
        file="control_plane/executions/residency.py", within="Residency.launch",
        old="for limit in limits(given):", new="for limit in ():",
        tests=("tests/control_plane/test_residency.py::test_limits_of_its_inputs_are_the_runs[sqlite]",),
    ),
    Mutation(
        "values_regions", "I9", "Values that may not lie at the control plane are refused there.",
        file="control_plane/executions/residency.py", within="Residency.launch",
        old="if told and not self._may(regions):", new="if False:",
        tests=("tests/control_plane/test_residency.py::test_values_of_a_run_that_may_not_lie_here_are_refused[sqlite]",),
    ),
    Mutation(
        "logs_regions", "I9", "Logs are not shown where they may not lie.",
        file="control_plane/executions/residency.py", within="Residency.show",
        old="if self._may(regions):", new="if True:",
        tests=("tests/control_plane/test_residency.py::test_logs_are_not_shown_where_they_may_not_lie[sqlite]",),
    ),
    Mutation(
        "claim_regions", "I9", "The Claim says that values have to stay in the region.",
        file="control_plane/ledger/claims.py", within="claim_all",
        old="offload=bool(region) and", new="offload=False and",
        tests=("tests/control_plane/test_residency.py::test_a_claim_says_whether_values_may_travel[sqlite]",),
    ),
    Mutation(
        "copy_regions", "I9", "No copy is asked for where it may not lie.",
        file="control_plane/movement/copying.py", within="copy_to",
        old="if not allows(allowed, region):", new="if False:",
        tests=("tests/control_plane/test_replication.py::test_a_move_copies_what_is_missing[sqlite]",
               "tests/control_plane/test_replication.py::test_nothing_is_copied_where_the_data_may_not_lie[sqlite]"),
    ),
    Mutation(
        "agent_regions", "I9", "An agent takes no copy that must stay elsewhere.",
        file="data_plane_agent/copies.py", within="Copies._take",
        old="if not allows(artifact.allowed_regions, self._store.region):", new="if False:",
        tests=("tests/data_plane_agent/test_copies.py::test_data_that_must_stay_elsewhere_is_not_taken",),
    ),
    Mutation(
        "travels_along", "I9", "What a task makes may lie only where its run may.",
        file="data_plane_agent/residency.py", within="Residency.artifact",
        old="allowed_regions=artifact.allowed_regions or self.regions", new="",
        tests=("tests/data_plane_agent/test_residency.py::test_limits_travel_with_what_is_made",),
    ),
    Mutation(
        "errors_regions", "I9", "Texts of errors of user code stay in the region.",
        file="data_plane_agent/residency.py", within="Residency.waits",
        old="return self.secluded and failure.owner is Owner.USER", new="return False",
        tests=("tests/data_plane_agent/test_residency.py::test_error_texts_stay_in_the_region",),
    ),
)  # fmt: skip
