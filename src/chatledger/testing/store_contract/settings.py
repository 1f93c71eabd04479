"""How hypothesis looks for counterexamples against a store."""

from hypothesis import HealthCheck, Phase, settings


def examples_of(examples: int, *, steps: int = 40) -> settings:
    """``examples`` tries, of ``steps`` operations each, however long the store takes for them."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        # Explaining a failure costs hundreds of further tries.
        phases=[phase for phase in Phase if phase is not Phase.explain],
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,  # every try has conversations of its own
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
        ],
    )
