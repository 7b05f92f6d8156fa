"""AWS's answers that say "not yet": what was made a moment ago has not reached every one of its servers.

AWS calls it eventual consistency, and its errors look like any other refusal. The table has a row for each call of a
launch and each refusal of it that passes by itself, with where it was seen. `Aws.call` repeats such a request.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

SECONDS_TO_SETTLE = 120.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0  # seconds, doubled from the first to the longest


@dataclass(frozen=True)
class Refusal:
    """A refusal that passes. said: part of its message, where the code alone may also mean a lasting mistake."""

    code: str
    said: str = ""


# NoSuchEntity: the role or profile that the launch made a second before. ConcurrentModification: IAM still applies it.
_IAM = (Refusal("NoSuchEntity"), Refusal("ConcurrentModification"), Refusal("EntityTemporarilyUnmodifiable"))
# Also up to an hour after a bucket of this name was deleted: aws-cli issue 2593.
_BUCKET = (Refusal("OperationAborted"), Refusal("NoSuchBucket"))
_NO_GROUP = (Refusal("InvalidGroup.NotFound"), Refusal("InvalidGroupId.NotFound"))

TRANSIENT: dict[tuple[str, str], tuple[Refusal, ...]] = {
    # terraform-provider-aws pull requests 6079 and 33531, issue 7628 (S3: one retry within a minute was enough)
    ("iam", "create_role"): (Refusal("NoSuchEntity", "not attachable"), *_IAM[1:]),  # the boundary, just made
    ("iam", "put_role_policy"): _IAM,
    ("iam", "create_instance_profile"): _IAM[1:],
    ("iam", "add_role_to_instance_profile"): _IAM,
    ("s3", "create_bucket"): _BUCKET[:1],
    ("s3", "put_public_access_block"): _BUCKET,
    ("s3", "put_bucket_encryption"): _BUCKET,
    ("s3", "put_bucket_lifecycle_configuration"): _BUCKET,
    ("s3", "put_bucket_tagging"): _BUCKET,
    ("s3", "put_object"): _BUCKET,
    # terraform-provider-aws retries both for its log groups
    ("logs", "create_log_group"): (Refusal("OperationAbortedException"),),
    ("logs", "put_retention_policy"): (Refusal("OperationAbortedException"), Refusal("ResourceNotFoundException")),
    # StarCluster issue 413, cluster-api-provider-aws issue 890
    ("ec2", "authorize_security_group_ingress"): _NO_GROUP,
    ("ec2", "create_launch_template"): _NO_GROUP,
    ("ec2", "create_fleet"): (
        *_NO_GROUP,
        Refusal("InvalidLaunchTemplateId.NotFound"),
        Refusal("InvalidLaunchTemplateId.NotFoundException"),
        Refusal("InvalidLaunchTemplateName.NotFoundException"),  # karpenter-provider-aws issue 1964
        Refusal("InvalidPlacementGroup.Unknown"),
        # terraform issues 2660, 4306 and 9474, packer pull request 9810
        Refusal("InvalidParameterValue", "Invalid IAM Instance Profile"),
        Refusal("InvalidParameterValue", "iamInstanceProfile"),
        Refusal("InvalidParameterValue", "has no associated IAM Roles"),
        # The account's first spot machine: AWS makes its own role, and does not know it yet.
        Refusal("InvalidParameterValue", "AWSServiceRoleForEC2Spot"),
        Refusal("AuthFailure.ServiceLinkedRoleCreationNotPermitted", "already"),
    ),
    ("scheduler", "create_schedule"): (
        Refusal("ValidationException", "assume the role"),  # aws-sdk-js-v3 issue 6494
        Refusal("ConflictException", "in progress"),
    ),
    # ansible-collections/amazon.aws issue 1810, kubergrunt issue 110
    ("ec2", "terminate_instances"): (Refusal("InvalidInstanceID.NotFound"),),
    ("budgets", "create_budget"): (Refusal("ServiceLinkedRoleLockClientException"),),
}


def is_transient(service: str, operation: str, code: str, message: str) -> bool:
    """Return whether this refusal of this call passes by itself."""
    known = TRANSIENT.get((service, operation), ())
    return any(each.code == code and each.said in message for each in known)


def is_known_to_pass(code: str) -> bool:
    """Return whether a refusal with this code passes by itself for some call, whatever its message."""
    return any(each.code == code and not each.said for known in TRANSIENT.values() for each in known)


def pauses() -> Iterator[float]:
    """Yield the pauses between tries, in seconds: doubled, with jitter, for two minutes in all."""
    spent, longest = 0.0, FIRST_PAUSE
    while spent < SECONDS_TO_SETTLE:
        pause = min(random.uniform(longest / 2, longest), SECONDS_TO_SETTLE - spent)
        spent += pause
        longest = min(2 * longest, LONGEST_PAUSE)
        yield pause
