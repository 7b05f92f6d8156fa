"""AWS for tests: moto where it answers truly, recorded answers where it lacks a call or answers wrongly.

Recorded: the price list and EC2's quotas (moto has neither), the public parameter of the machine image (moto has not
this one), placement groups (moto has none). Requests are kept as boto3 sends them, after its own validation.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.exceptions import ClientError

from ragcun_cli.aws.calls import Aws
from ragcun_cli.aws.policy import boundary_policy

ACCOUNT = "123456789012"
HOME = "us-east-1"
OK = type("Response", (), {"status_code": 200, "headers": {}})()

Fault = Callable[[str, str], BaseException | None]


@dataclass
class Cloud:
    """sent: every request as (service, operation, parameters). quota: vCPUs of every quota. answers: more recorded
    answers, by operation; None leaves it to moto. before, after: a fault for a call, before it is carried out or after.
    """

    sent: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    quota: float = 192.0
    on_demand: float | None = 21.957642
    answers: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = field(default_factory=dict)
    placement_groups: list[str] = field(default_factory=list)
    _aws: Aws | None = None
    before: Fault = lambda service, operation: None
    after: Fault = lambda service, operation: None

    def session(self, region: str | None = HOME) -> Any:
        """A session whose requests go through here first."""
        session = boto3.Session(region_name=region)
        session.events.register("provide-client-params.*", self._note)
        session.events.register("before-call.*", self._answer)
        session.events.register("after-call.*", self._spoil)
        return session

    def aws(self) -> Aws:
        """One for all that a test does: clients take long to make."""
        if self._aws is None:
            self._aws = Aws(self.session())
        return self._aws

    def operations(self) -> list[str]:
        """What was sent, as service:Operation."""
        return [f"{service}:{operation}" for service, operation, _ in self.sent]

    def requests(self, operation: str) -> list[dict[str, Any]]:
        """Parameters of every request of an operation."""
        return [parameters for _, name, parameters in self.sent if name == operation]

    def _note(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.sent.append((model.service_model.service_name, model.name, dict(params)))

    def _answer(self, model: Any, params: dict[str, Any], **_: Any) -> Any:
        service, operation = model.service_model.service_name, model.name
        if (fault := self.before(service, operation)) is not None:
            raise fault
        asked = next((sent for _, name, sent in reversed(self.sent) if name == operation), {})
        recorded = self.answers.get(operation) or getattr(self, f"_{operation}", None)
        answer = None if recorded is None else recorded(asked)
        return None if answer is None else (OK, answer)

    def _spoil(self, model: Any, **_: Any) -> None:
        if (fault := self.after(model.service_model.service_name, model.name)) is not None:
            raise fault

    def _GetServiceQuota(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"Quota": {"QuotaCode": asked["QuotaCode"], "Value": self.quota}}

    def _DescribeRegions(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Two: moto has 38, and each takes a while to be asked."""
        return {"Regions": [{"RegionName": HOME}, {"RegionName": "us-west-2"}]}

    def _GetProducts(self, asked: dict[str, Any]) -> dict[str, Any]:
        """In the shape of AWS's price list, shortened."""
        dimension = {"unit": "Hrs", "pricePerUnit": {"USD": f"{self.on_demand:.10f}"}}
        entry = {
            "product": {"productFamily": "Compute Instance", "attributes": {"instanceType": "p4d.24xlarge"}},
            "terms": {"OnDemand": {"H7NGEAC6UEHNTKSJ.JRTCKXETXF": {"priceDimensions": {"a.b.c": dimension}}}},
        }
        return {"PriceList": [json.dumps(entry)], "FormatVersion": "aws_v1"}

    def _GetParameter(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        if "gpu-ubuntu-24.04" in asked["Name"]:
            raise refused("ParameterNotFound", "GetParameter", 400)
        return {"Parameter": {"Name": asked["Name"], "Value": image_id()}}

    def _CreatePlacementGroup(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.placement_groups.append(asked["GroupName"])
        return {"PlacementGroup": {"GroupName": asked["GroupName"]}}

    def _DeletePlacementGroup(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["GroupName"] not in self.placement_groups:
            raise refused("InvalidPlacementGroup.Unknown", "DeletePlacementGroup", 400)
        self.placement_groups.remove(asked["GroupName"])
        return {}

    def _DescribePlacementGroups(self, asked: dict[str, Any]) -> dict[str, Any]:
        (asked_for,) = asked["Filters"]
        tags = {name: [{"Key": "ragcun:run", "Value": name.removeprefix("ragcun-")}] for name in self.placement_groups}
        return {
            "PlacementGroups": [
                {"GroupName": name, "Tags": tags[name]}
                for name in self.placement_groups
                if asked_for["Name"] == "tag-key" or [tag["Value"] for tag in tags[name]] == asked_for["Values"]
            ]
        }

    def _DescribeRouteTables(self, asked: dict[str, Any]) -> dict[str, Any]:
        """As every default VPC has it; moto's has no gateway."""
        (vpc,) = asked["Filters"][0]["Values"]
        out = {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1", "State": "active"}
        return {"RouteTables": [{"VpcId": vpc, "Associations": [{"Main": True}], "Routes": [out]}]}


def make_boundary() -> None:
    """What an administrator does once."""
    boto3.client("iam", region_name=HOME).create_policy(
        PolicyName="ragcun-boundary", PolicyDocument=boundary_policy(ACCOUNT)
    )


def image_id() -> str:
    """An image of AWS's Deep Learning account that moto knows."""
    images = boto3.client("ec2", region_name=HOME).describe_images(Owners=["898082745236"])["Images"]
    return str(images[0]["ImageId"])


def refused(code: str, operation: str, status: int = 403, message: str = "told by the test") -> ClientError:
    """AWS's answer that it will not."""
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)
