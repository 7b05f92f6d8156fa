"""IAM's evaluation of one identity-based policy, as far as ragcun's use it: Allow, wildcards, two conditions."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

Policy = Mapping[str, Any]


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def allows(policy: Policy, action: str, resource: str, context: Mapping[str, str] | None = None) -> bool:
    """Whether some statement allows the action on the resource; context: the request's condition keys."""
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"  # what this evaluation knows
        if (
            any(fnmatch.fnmatchcase(action.lower(), each.lower()) for each in listed(statement["Action"]))
            and any(fnmatch.fnmatchcase(resource, _pattern(each)) for each in listed(statement["Resource"]))
            and _holds(statement.get("Condition", {}), context or {})
        ):
            return True
    return False


def _pattern(resource: str) -> str:
    return resource.replace("[", "[[]").replace("${aws:userid}", "user")


def _holds(condition: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    for operator, wanted in condition.items():
        for key, values in wanted.items():
            if key not in context:  # neither operator holds for a key that is not there
                return False
            if operator == "StringEquals":
                met = context[key] in listed(values)
            else:
                assert operator == "StringLike", operator
                met = any(fnmatch.fnmatchcase(context[key], each) for each in listed(values))
            if not met:
                return False
    return True


def actions_of(policy: Policy) -> set[str]:
    return {action for statement in policy["Statement"] for action in listed(statement["Action"])}
