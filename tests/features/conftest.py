from __future__ import annotations

from hypothesis import settings

# the first call of a compiled function takes seconds, and no law is about time
settings.register_profile("features", deadline=None)
settings.load_profile("features")
