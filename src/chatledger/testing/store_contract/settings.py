"""Settings of hypothesis for searching counterexamples against a store."""

from hypothesis import HealthCheck, Phase, settings


def examples_of(examples: int, *, steps: int = 40) -> settings:
    """Return settings for ``examples`` tries of ``steps`` operations each, without a time limit."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        # Explaining a failure takes hundreds of further tries.
        phases=[phase for phase in Phase if phase is not Phase.explain],
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,  # every try has conversations of its own
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
        ],
    )
