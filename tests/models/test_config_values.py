"""Any value under any key of config.json makes a model or a ValueError, of every architecture."""

from __future__ import annotations

import copy
import itertools

import pytest
from models.variants import VARIANTS

from curated_transformers.models import AutoCausalLM, AutoEncoder

VALUES = (
    0,
    -1,
    1,
    3,
    2.5,
    -0.5,
    float("nan"),
    10**12,
    "seven",
    "",
    [],
    [1, "a"],
    {},
    {"a": 1},
    True,
)
#: One of each architecture; what it leaves out at its defaults is another's key.
FIRST = list({variant.architecture: variant for variant in reversed(VARIANTS)}.values())


def class_of(config):
    auto = (AutoEncoder, AutoCausalLM)
    found = itertools.chain.from_iterable(a.registry.classes() for a in auto)
    return next(cls for _, cls in found if cls.is_supported(config))


def keys(variant):
    """Those of all variants of the architecture, and those within objects."""
    for config in (v.config for v in VARIANTS if v.architecture == variant.architecture):
        for key, value in config.items():
            if key == "model_type":
                continue
            yield (key,)
            if isinstance(value, dict):
                yield from ((key, inner) for inner in value)


@pytest.mark.parametrize("variant", FIRST, ids=lambda variant: variant.architecture)
def test_a_value_is_taken_or_refused_by_a_value_error(variant):
    cls = class_of(variant.config)
    refused = 0
    for path, value in itertools.product(sorted(set(keys(variant))), VALUES):
        config = copy.deepcopy(variant.config)
        place = config
        for key in path[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                place = config[key] = {}
        place[path[-1]] = value
        try:
            cls(cls.config_from_hf(config))
        except ValueError:
            refused += 1
        except Exception as error:
            error.add_note(f"{path} = {value!r}") if hasattr(error, "add_note") else None
            raise
    assert refused > 50
