from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine must not fail a test: no property is about time.
settings.register_profile("edgekit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgekit")
