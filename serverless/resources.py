"""Writes .chalice/policy-STAGE.json and resources.json anew, from .chalice/config.json.

Whoever changes a table's name or a model there runs this, as ``make serverless`` does; a test
holds the files equal to what it writes. It is no part of the function.
"""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chatledger.http.api import SEEN_HEADERS
from chatledger.http.chalice import TIME_LIMIT
from chatledger.models.bedrock import arns
from chatledger.models.bedrock import policy as bedrock_policy
from chatledger.stores.dynamodb import policy as dynamodb_policy
from chatledger.stores.dynamodb.table_check import (
    INDEX_DEFINITION,
    INDEX_KEYS,
    KEYS,
    TTL,
    schema_of,
    types_of,
)

HERE = Path(__file__).parent
CONFIG = Path(".chalice", "config.json")
LASTING = "prod"
"""The stage whose conversations stay when everything else is removed."""

Json = dict[str, Any]


def files(config: Json) -> dict[Path, Json]:
    """What each file is to hold."""
    written = {
        Path(".chalice", f"policy-{stage}.json"): policy(config, stage)
        for stage in config["stages"]
    }
    return written | {Path("resources.json"): resources(config)}


def _function(config: Json, stage: str) -> str:
    """As ``chalice deploy`` calls it."""
    return f"{config['app_name']}-{stage}"


def _variables(config: Json, stage: str) -> dict[str, str]:
    merged: dict[str, str] = {}
    for part in (config, config["stages"][stage]):
        merged |= part.get("environment_variables", {})
    return merged


def _table(config: Json, stage: str) -> str:
    url = _variables(config, stage).get("CHATLEDGER_STORE", "")
    if not url.startswith("dynamodb://"):
        raise SystemExit(f"The stage {stage} needs a CHATLEDGER_STORE such as dynamodb://TABLE.")
    return urlsplit(url).netloc


# Rights ---------------------------------------------------------------------------------------


def policy(config: Json, stage: str) -> Json:
    """What the function of ``stage`` may do."""
    variables = _variables(config, stage)
    table = dynamodb_policy(f"arn:aws:dynamodb:*:*:table/{_table(config, stage)}")
    statements = [each for each in table["Statement"] if each["Sid"] != "ChatledgerCreates"]
    if models := list(_bedrock_models(variables)):
        wanted = [arn for model in models for arn in arns(model)]
        statements += bedrock_policy(wanted)["Statement"]
    group = f"arn:aws:logs:*:*:log-group:/aws/lambda/{_function(config, stage)}"
    actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
    statements.append(_allow("ChatledgerLogs", actions, [group, f"{group}:*"]))
    if config["stages"][stage].get("xray", config.get("xray")):
        actions = ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
        statements.append(_allow("ChatledgerTraces", actions, "*"))  # X-Ray knows no other resource
    return {"Version": "2012-10-17", "Statement": statements}


def _bedrock_models(variables: dict[str, str]) -> Iterator[str]:
    names = [
        variables.get("CHATLEDGER_MODEL", ""),
        *variables.get("CHATLEDGER_MODELS", "").split(","),
    ]
    for name in names:
        provider, _, model = name.strip().partition(":")
        if provider == "bedrock":
            yield model


def _allow(name: str, actions: list[str], resource: str | list[str]) -> Json:
    return {"Sid": name, "Effect": "Allow", "Action": actions, "Resource": resource}


# Resources ------------------------------------------------------------------------------------


def resources(config: Json) -> Json:
    """What ``chalice package --merge-template`` lays over what it makes itself.

    It is one file for all stages, so CloudFormation is told which one it is.
    """
    stages = list(config["stages"])
    tables = {_logical_name(stage): _table_resource(config, stage) for stage in stages}
    function = {"Fn::Sub": f"{config['app_name']}-${{Stage}}"}
    group = {"Fn::Sub": f"/aws/lambda/{config['app_name']}-${{Stage}}"}
    return {
        "Parameters": {
            "Stage": {
                "Type": "String",
                "AllowedValues": stages,
                "Description": "The stage that was packaged: as in chalice package --stage.",
            },
            "AlarmTopic": {
                "Type": "String",
                "Default": "",
                "Description": "The ARN of an SNS topic that is told of alarms, if there is one.",
            },
        },
        "Mappings": {"LogDays": {stage: {"Days": _log_days(stage)} for stage in stages}},
        "Conditions": {
            **{_condition(stage): {"Fn::Equals": [{"Ref": "Stage"}, stage]} for stage in stages},
            "HasAlarmTopic": {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmTopic"}, ""]}]},
        },
        "Resources": {
            # Else the function could be asked before its group is there, and make it for ever.
            "APIHandler": {"DependsOn": "LogGroup", "Properties": {"FunctionName": function}},
            # Chalice's log_retention_in_days names a function that is not there, and
            # chalice deploy a group that is never written to.
            "LogGroup": {
                "Type": "AWS::Logs::LogGroup",
                "Properties": {
                    "LogGroupName": group,
                    "RetentionInDays": {"Fn::FindInMap": ["LogDays", {"Ref": "Stage"}, "Days"]},
                },
            },
            # SAM puts these into the API's definition, so that they are deployed with it.
            "RestAPI": {"Properties": {"GatewayResponses": _gateway_responses()}},
            **tables,
            **_alarms(config),
        },
    }


def _log_days(stage: str) -> int:
    return 90 if stage == LASTING else 14


def _condition(stage: str) -> str:
    return f"Is{_title(stage)}"


def _logical_name(stage: str) -> str:
    return f"Conversations{_title(stage)}"


def _title(stage: str) -> str:
    """As CloudFormation takes it in names: letters and digits alone."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", stage))


def _table_resource(config: Json, stage: str) -> Json:
    lasting = stage == LASTING
    fate = "Retain" if lasting else "Delete"
    return {
        "Type": "AWS::DynamoDB::Table",
        "Condition": _condition(stage),
        "DeletionPolicy": fate,
        "UpdateReplacePolicy": fate,
        "Properties": {
            "TableName": _table(config, stage),
            "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": schema_of(KEYS),
            "AttributeDefinitions": types_of(KEYS | INDEX_KEYS),
            "GlobalSecondaryIndexes": [INDEX_DEFINITION],
            "TimeToLiveSpecification": {"AttributeName": TTL, "Enabled": True},
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
            "DeletionProtectionEnabled": lasting,
        },
    }


def _gateway_responses() -> Json:
    """What API Gateway answers where it asks the function nothing, or gets no answer from it."""

    def response(status: int | None, code: str, sentence: str, **headers: str) -> Json:
        named = {name.replace("_", "-"): f"'{value}'" for name, value in headers.items()}
        return {
            **({} if status is None else {"StatusCode": status}),
            "ResponseTemplates": {
                "application/json": json.dumps({"error": sentence, "code": code})
            },
            "ResponseParameters": {
                "Headers": {
                    "Access-Control-Allow-Origin": "'*'",
                    "Access-Control-Expose-Headers": f"'{', '.join(SEEN_HEADERS)}'",
                }
                | named
            },
        }

    signed_out = response(401, "not_signed_in", "Sign in first.", WWW_Authenticate="Bearer")
    return {
        "DEFAULT_4XX": response(None, "refused", "The request was refused."),
        "DEFAULT_5XX": response(
            None, "internal_error", "Something went wrong here; try again later."
        ),
        "UNAUTHORIZED": signed_out,
        "EXPIRED_TOKEN": signed_out,
        "MISSING_AUTHENTICATION_TOKEN": response(
            404, "no_such_route", "There is nothing at this address."
        ),
        "REQUEST_TOO_LARGE": response(413, "too_large", "The request is too large."),
        "THROTTLED": response(
            429,
            "too_many_requests",
            "There is too much to do; try again in a moment.",
            Retry_After="1",
        ),
        "INTEGRATION_TIMEOUT": response(
            504, "timed_out", "It took too long; try again.", Retry_After="5"
        ),
    }


def _alarms(config: Json) -> Json:
    # What takes longest and ends well is a turn that was cut off.
    milliseconds = int(TIME_LIMIT / timedelta(milliseconds=1))

    def alarm(what: str, namespace: str, dimensions: Json, **rule: Any) -> Json:
        actions = {"Fn::If": ["HasAlarmTopic", [{"Ref": "AlarmTopic"}], {"Ref": "AWS::NoValue"}]}
        return {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "AlarmDescription": what,
                "Namespace": namespace,
                "Dimensions": [{"Name": name, "Value": each} for name, each in dimensions.items()],
                "Period": 300,
                "TreatMissingData": "notBreaching",
                "ComparisonOperator": "GreaterThanOrEqualToThreshold",
                "AlarmActions": actions,
                "OKActions": actions,
                **rule,
            },
        }

    function = {"FunctionName": {"Ref": "APIHandler"}}
    api = {"ApiName": config["app_name"], "Stage": {"Ref": "Stage"}}
    once = {"Statistic": "Sum", "Threshold": 1, "EvaluationPeriods": 1}
    return {
        "ErrorsAlarm": alarm(
            "The function failed: it ended with an error, or its time was over.",
            "AWS/Lambda",
            function,
            MetricName="Errors",
            **once,
        ),
        "ThrottlesAlarm": alarm(
            "Requests found no free instance of the function.",
            "AWS/Lambda",
            function,
            MetricName="Throttles",
            **once,
        ),
        "DurationAlarm": alarm(
            "One request of twenty takes nearly all the time that it may, or is cut off.",
            "AWS/Lambda",
            function,
            MetricName="Duration",
            ExtendedStatistic="p95",
            Threshold=milliseconds - 1000,
            EvaluationPeriods=3,
        ),
        # The function answers most failures itself, so that they are no errors of its own.
        "FailuresAlarm": alarm(
            "Users were told of a failure (5xx) five times within five minutes.",
            "AWS/ApiGateway",
            api,
            MetricName="5XXError",
            Statistic="Sum",
            Threshold=5,
            EvaluationPeriods=1,
        ),
    }


def main() -> None:
    config = json.loads((HERE / CONFIG).read_text(encoding="utf-8"))
    for path, content in files(config).items():
        (HERE / path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
