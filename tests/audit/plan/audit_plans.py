"""Small audit plans for tests: milliseconds to read, seconds to play."""

from __future__ import annotations

import copy
from typing import Any

SMALL: dict[str, Any] = {
    "name": "small",
    "seeds": [0, 1],
    "data": ["demo:face?size=16", "demo:faces?indices=0-1&size=16"],
    "models": ["lenet-dlg:width=4"],
    "attacks": ["idlg", "control"],
    "defences": ["none", "gaussian-noise:std=1e-3 + half-precision"],
    "protocols": [{}, {"steps": 2, "lr": 0.1}],
    "threats": [{}, {"labels": True}],
    "states": ["untrained", "trained:rounds=1"],
    "budget": 20,
    "training": {"data": "demo:faces?indices=10-17&size=16", "clients": 2, "lr": 0.1},
    "exclude": [{"attacks": "control", "defences": "gaussian-noise*"}],
    "expect": [{"what": "It leaks", "where": {"attacks": "idlg"}, "measure": "psnr", "relation": "at least", "value": 10.0}],
}


def table(**changes: Any) -> dict[str, Any]:
    """The small plan with changes; None takes a key away."""
    found = copy.deepcopy(SMALL)
    for key, value in changes.items():
        if value is None:
            found.pop(key)
        else:
            found[key] = value
    return found


def plain(**changes: Any) -> dict[str, Any]:
    """The small plan without defences, protocols, threats and trained states, and with nothing excluded or expected."""
    taken = dict.fromkeys(("defences", "protocols", "threats", "states", "exclude", "expect", "training"))
    return table(**({**taken, "seeds": [0], **changes}))
